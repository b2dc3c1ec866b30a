#!/usr/bin/env bash
# Installs what the tests of Kafka clients need, in the versions that the files here pin, into
# target/clients (or the folder that is named): tests/clients/install.sh [FOLDER]
# Python's packages are in tests/python/requirements.txt; .ci/run installs both. Needs cargo, a C
# compiler with make, a JDK with Maven, Go, and node with npm. What is missing and in Debian is installed
# with apt-get, when this is root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../target/clients}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# debian PROGRAM PACKAGE...
debian() {
  local program=$1
  shift
  command -v "$program" >/dev/null && return
  [ "$(id -u)" = 0 ] || { echo "$program is missing, and only root can install it"; exit 1; }
  echo "installing $* with apt-get"
  [ -n "${updated:-}" ] || apt-get update -qq
  updated=yes
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

debian kcat kcat
debian javac default-jdk-headless
debian mvn maven
debian go golang-go
debian npm nodejs npm
debian make make

echo "== rdkafka"
CARGO_TARGET_DIR=$folder/rdkafka cargo build --locked --manifest-path "$here/rdkafka/Cargo.toml"
echo "== franz-go"
(cd "$here/franz-go" && go build -mod=readonly -o "$folder/franz-go" .)
echo "== kafka-clients"
mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder/java"
echo "== Kafka's tools"
mvn -q -B -f "$here/kafka-tools/pom.xml" dependency:copy-dependencies \
  -DoutputDirectory="$folder/kafka-tools"
echo "== kafkajs"
mkdir -p "$folder/kafkajs"
cp "$here"/kafkajs/package*.json "$folder/kafkajs/"
npm ci --prefix "$folder/kafkajs" --no-audit --no-fund --ignore-scripts
