//! One connection: requests out, answers in.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use sapwood_kafka_wire::{
    Message, Request, decode_response, encode_request,
    messages::{ApiVersionsRequest, ApiVersionsResponse},
};

use crate::{Error, error::refused};

const CLIENT_ID: &str = "sapwood-bench";
/// The largest answer that is read.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// How long an answer may take: a broker that stands still longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// UNSUPPORTED_VERSION.
const UNSUPPORTED: i16 = 35;

/// The sending and the receiving half of a connection; a clone shares the socket.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    socket: TcpStream,
    versions: Versions,
    next_id: i32,
    /// Reused, so that a large answer does not touch new memory each time.
    frame: BytesMut,
}

/// Which versions of which APIs the broker speaks.
#[derive(Debug, Clone, Default)]
struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    /// The newest version of a request that both sides speak, up to `newest`.
    fn of<R: Request>(&self, newest: i16) -> Result<i16, Error> {
        let ours = R::VERSIONS;
        let (ours_min, ours_max) = (*ours.start(), newest.min(*ours.end()));
        let theirs = self.0.iter().find(|(key, ..)| *key == R::KEY);
        let (theirs_min, theirs_max) = theirs.map_or((0, -1), |(_, min, max)| (*min, *max));
        let version = ours_max.min(theirs_max);
        if version >= ours_min.max(theirs_min) {
            return Ok(version);
        }
        Err(Error::Version {
            api: R::KEY,
            theirs_min,
            theirs_max,
            ours_min,
            ours_max,
        })
    }
}

impl Connection {
    /// Connects and asks for the versions.
    pub(crate) fn open(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Connect {
            address: address.to_owned(),
            source,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut socket = None;
        for address in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(connected) => {
                    socket = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let socket = socket.ok_or_else(|| failed(last))?;
        socket.set_nodelay(true).map_err(failed)?;
        socket
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(failed)?;
        let mut connection = Self {
            address: address.to_owned(),
            socket,
            versions: Versions::default(),
            next_id: 0,
            frame: BytesMut::new(),
        };
        connection.versions = connection.ask_versions()?;
        Ok(connection)
    }

    fn ask_versions(&mut self) -> Result<Versions, Error> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        // A broker that does not know version 3 answers with version 0 and an error; version 0 all know.
        for version in [3, 0] {
            self.send(&request, version)?;
            let frame = self.receive("asking for versions")?;
            let decoded: Result<(i32, ApiVersionsResponse), _> =
                match decode_response(frame.clone(), version) {
                    Err(_) if version > 0 => decode_response(frame, 0),
                    decoded => decoded,
                };
            let (_, answer) = decoded?;
            if answer.error_code == UNSUPPORTED && version > 0 {
                continue;
            }
            if answer.error_code != 0 {
                return Err(refused("asking for versions", answer.error_code, None));
            }
            let versions = answer.api_keys.iter();
            let versions = versions.map(|api| (api.api_key, api.min_version, api.max_version));
            return Ok(Versions(versions.collect()));
        }
        Err(refused("asking for versions", UNSUPPORTED, None))
    }

    /// The other half, for a thread of its own. Only one of the two may receive.
    pub(crate) fn split(&self) -> Result<Self, Error> {
        let socket = self.socket.try_clone().map_err(|source| Error::Io {
            what: "splitting a socket",
            source,
        })?;
        Ok(Self {
            address: self.address.clone(),
            socket,
            versions: self.versions.clone(),
            next_id: 0,
            frame: BytesMut::new(),
        })
    }

    /// Ends what the other half waits for.
    pub(crate) fn shut_down(&self) {
        // It may be closed already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// The newest version up to `newest` that both sides speak.
    pub(crate) fn version<R: Request>(&self, newest: i16) -> Result<i16, Error> {
        self.versions.of::<R>(newest)
    }

    /// One request and its answer.
    pub(crate) fn call<R: Request>(
        &mut self,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, Error> {
        let version = self.version::<R>(newest)?;
        let id = self.send(request, version)?;
        let (answered, answer) = self.answer::<R::Response>(version)?;
        match answered == id {
            true => Ok(answer),
            false => Err(Error::Answer(format!(
                "request {id} got the answer of {answered}"
            ))),
        }
    }

    /// The correlation id that the next request gets.
    pub(crate) fn next_id(&self) -> i32 {
        self.next_id
    }

    /// Writes a request; its correlation id.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, Error> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let parts = encode_request(id, version, Some(CLIENT_ID), request)?;
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        write_all(&mut self.socket, parts).map_err(|source| self.broken("sending", source))?;
        Ok(id)
    }

    /// Waits for the next answer and reads it: its correlation id and its body.
    pub(crate) fn answer<M: Message>(&mut self, version: i16) -> Result<(i32, M), Error> {
        let frame = self.receive("waiting for an answer")?;
        Ok(decode_response(frame, version)?)
    }

    /// Waits for the next frame.
    fn receive(&mut self, what: &'static str) -> Result<Bytes, Error> {
        let mut length = [0; 4];
        let read = self.socket.read_exact(&mut length);
        read.map_err(|source| self.broken(what, source))?;
        let length = usize::try_from(i32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX)
            .ok_or_else(|| {
                Error::Answer(format!(
                    "it is {} bytes long; the limit is {FRAME_BYTES_MAX}",
                    u32::from_be_bytes(length)
                ))
            })?;
        self.frame.resize(length, 0);
        let read = self.socket.read_exact(&mut self.frame);
        read.map_err(|source| self.broken(what, source))?;
        Ok(self.frame.split().freeze())
    }

    /// Takes a frame's memory back when nothing holds it any more.
    pub(crate) fn reuse(&mut self, frame: Bytes) {
        if let Ok(frame) = frame.try_into_mut() {
            self.frame = frame;
        }
    }

    /// As [`Self::answer`], with the frame for [`Self::reuse`].
    pub(crate) fn answer_with_frame<M: Message>(
        &mut self,
        version: i16,
    ) -> Result<(M, Bytes), Error> {
        let frame = self.receive("waiting for an answer")?;
        let (_, message) = decode_response(frame.clone(), version)?;
        Ok((message, frame))
    }

    fn broken(&self, what: &'static str, source: io::Error) -> Error {
        Error::Broken {
            address: self.address.clone(),
            what,
            source,
        }
    }
}

fn write_all(socket: &mut TcpStream, mut parts: Vec<IoSlice<'_>>) -> io::Result<()> {
    let mut rest = &mut parts[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match socket.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
