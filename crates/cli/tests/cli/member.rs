//! A member of a group, without a client.

// Helpers are not tests to clippy, which allows it there.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::broker::Broker;

/// A member of a classic group, by hand: all of Kafka's protocol that it takes.
pub(crate) struct Member {
    stream: TcpStream,
    generation: i32,
    pub(crate) member_id: String,
}

impl Member {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
    }

    fn blob(bytes: &mut Vec<u8>, blob: &[u8]) {
        bytes.extend(i32::try_from(blob.len()).unwrap().to_be_bytes());
        bytes.extend(blob);
    }

    /// Sends a request and reads the body of its answer.
    fn ask(stream: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Vec<u8> {
        let mut request = [api.to_be_bytes(), version.to_be_bytes()].concat();
        request.extend(7_i32.to_be_bytes());
        Self::text(&mut request, "invoices");
        request.extend(body);
        let mut frame = Vec::new();
        Self::blob(&mut frame, &request);
        stream.write_all(&frame).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut answer).unwrap();
        answer.split_off(4)
    }

    /// Joins a group of its own and gives itself some partitions of `orders`.
    pub(crate) fn join(broker: &Broker, group: &str, partitions: &[i32]) -> Self {
        let mut stream = TcpStream::connect(&broker.listen).unwrap();
        let mut body = Vec::new();
        Self::text(&mut body, group);
        body.extend(60_000_i32.to_be_bytes());
        body.extend(60_000_i32.to_be_bytes());
        Self::text(&mut body, "");
        Self::text(&mut body, "consumer");
        body.extend(1_i32.to_be_bytes());
        Self::text(&mut body, "range");
        Self::blob(&mut body, b"\0\0\0\0\0\x01\0\x06orders\0\0\0\0");
        // JoinGroup 1: error, generation, protocol, leader, member id...
        let answer = Self::ask(&mut stream, 11, 1, &body);
        assert_eq!(answer[..2], [0, 0], "no error");
        let generation = i32::from_be_bytes(answer[2..6].try_into().unwrap());
        let mut rest = &answer[6..];
        let mut text = || {
            let length = usize::from(u16::from_be_bytes(rest[..2].try_into().unwrap()));
            let text = String::from_utf8(rest[2..2 + length].to_vec()).unwrap();
            rest = &rest[2 + length..];
            text
        };
        let (protocol, leader, member_id) = (text(), text(), text());
        assert_eq!((protocol.as_str(), &leader), ("range", &member_id));

        let mut given = b"\0\0\0\0\0\x01\0\x06orders".to_vec();
        given.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
        partitions
            .iter()
            .for_each(|number| given.extend(number.to_be_bytes()));
        given.extend([0; 4]);
        let mut body = Vec::new();
        Self::text(&mut body, group);
        body.extend(generation.to_be_bytes());
        Self::text(&mut body, &member_id);
        body.extend(1_i32.to_be_bytes());
        Self::text(&mut body, &member_id);
        Self::blob(&mut body, &given);
        // SyncGroup 0.
        let answer = Self::ask(&mut stream, 14, 0, &body);
        assert_eq!(answer[..2], [0, 0], "no error");
        Self {
            stream,
            generation,
            member_id,
        }
    }

    pub(crate) fn leave(mut self, group: &str) {
        assert_eq!(self.generation, 1);
        let mut body = Vec::new();
        Self::text(&mut body, group);
        Self::text(&mut body, &self.member_id);
        // LeaveGroup 0.
        let answer = Self::ask(&mut self.stream, 13, 0, &body);
        assert_eq!(answer, [0, 0], "no error");
    }
}
