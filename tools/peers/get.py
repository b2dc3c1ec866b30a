"""Gets the peers into a folder of their own. Nothing is installed on the machine, and no service is started:
Kafka's jars come by Maven, as tests/clients/install.sh has them, and Debian's packages are only unpacked."""

import glob
import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POM = os.path.join(ROOT, "tests", "clients", "kafka-tools", "pom.xml")
GET_SECONDS_MAX = 600


class Missing(Exception):
    """A peer that cannot be had here, and why."""


def default_cache():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "sapwood-peers")


def kafka(cache, version):
    """The folder of Kafka's jars. `version` None: the one that the tests' pom pins."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise Missing(f"there is no {program}; it wants a JDK of 17 or newer, and Maven")
    folder = os.path.join(cache, f"kafka-{version or 'pinned'}")
    if version is None and is_older(folder, POM):
        shutil.rmtree(folder, ignore_errors=True)
    if not glob.glob(os.path.join(folder, "kafka_2.13-*.jar")):
        command = ["mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        run(command + ([f"-Dkafka.version={version}"] if version else []))
    return folder


def is_older(folder, file):
    return os.path.exists(folder) and os.path.getmtime(folder) < os.path.getmtime(file)


class Debian:
    """Packages of Debian, unpacked with what they need and this machine has not."""

    def __init__(self, root):
        self.root = root

    def program(self, name):
        return find(self.root, name) or shutil.which(name)

    def environment(self):
        libraries = glob.glob(os.path.join(self.root, "usr", "lib", "*-linux-gnu*"))
        libraries += [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else dict(os.environ)


def find(root, name):
    for folder in ("usr/bin", "usr/sbin"):
        path = os.path.join(root, folder, name)
        if os.path.exists(path):
            return path
    return None


def debian(cache, package):
    """A program that has the name of its package; the machine's own, if it is installed."""
    root = os.path.join(cache, "debian", package)
    found = Debian(root)
    if found.program(package):
        return found
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise Missing(f"it is not installed, and there is no {program}")
    archives = os.path.join(cache, "debian", "archives", package)
    os.makedirs(os.path.join(archives, "partial"), exist_ok=True)
    download = [
        "apt-get", "install", "--download-only", "-y", "-qq", "--no-install-recommends",
        "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}", package]
    try:
        run(download)
    except Missing:
        # The lists may be old or missing; only root can renew them.
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", "-qq"])
        run(download)
    for archive in sorted(glob.glob(os.path.join(archives, "*.deb"))):
        run(["dpkg", "-x", archive, root])
    if not found.program(package):
        raise Missing("its packages do not have the program")
    return found


def run(command):
    print(f"getting: {' '.join(command[:2])} ... {command[-1]}", flush=True)
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=GET_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} took more than {GET_SECONDS_MAX} s")
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        raise Missing(f"{command[0]}: {said[0] if said else 'failed'}")
