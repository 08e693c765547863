//! The pkt-line framing of git's wire protocol
//! (<https://git-scm.com/docs/gitprotocol-common#_pkt_line_format>).

use std::{fmt, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use workflows_core::{Error, Result};

/// The longest packet, its length included.
const LONGEST: usize = 65_520;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: between sections of a message.
    Delimiter,
    /// `0002`: the end of a response of a stateless connection.
    ResponseEnd,
    /// Anything else.
    Data(Bytes),
}

/// Appends a data packet.
pub(super) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}", text.len() + 4).as_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a flush packet.
pub(super) fn put_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends a delimiter packet.
pub(super) fn put_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// Packets out of a stream of bytes.
pub(super) struct PacketReader {
    stream: BoxStream<'static, Result<Bytes>>,
    buffer: BytesMut,
    idle: Duration,
}

impl fmt::Debug for PacketReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketReader").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl PacketReader {
    /// A reader that gives up when no byte comes for `idle`.
    pub(super) fn new(stream: BoxStream<'static, Result<Bytes>>, idle: Duration) -> Self {
        Self { stream, buffer: BytesMut::new(), idle }
    }

    /// The next packet; `None` at the end of the stream, when it ends between packets.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>> {
        if !self.fill(4).await? {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            return Err(broken("the answer ends within a packet"));
        }
        let length = self
            .buffer
            .get(..4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or_else(|| broken("a packet's length is not hexadecimal"))?;
        let packet = match length {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            2 => Packet::ResponseEnd,
            3 => return Err(broken("a packet's length is 3")),
            length if length > LONGEST => {
                return Err(broken("a packet is longer than 65520 bytes"));
            }
            length => {
                if !self.fill(length).await? {
                    return Err(broken("the answer ends within a packet"));
                }
                let mut packet = self.buffer.split_to(length);
                packet.advance(4);
                return Ok(Some(Packet::Data(packet.freeze())));
            }
        };
        self.buffer.advance(4);
        Ok(Some(packet))
    }

    /// The next packet, where the message must not end.
    pub(super) async fn expect(&mut self) -> Result<Packet> {
        self.next().await?.ok_or_else(|| broken("the answer ends too early"))
    }

    /// Whether so many bytes could be had.
    async fn fill(&mut self, bytes: usize) -> Result<bool> {
        while self.buffer.len() < bytes {
            match tokio::time::timeout(self.idle, self.stream.next()).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk?),
                Ok(None) => return Ok(false),
                Err(_) => {
                    return Err(Error::transient(
                        super::REACH,
                        format!("no byte came for {} s", self.idle.as_secs_f32()),
                    ));
                }
            }
        }
        Ok(true)
    }
}

/// A server that does not keep to the protocol. A proxy may have cut the answer, so it may go
/// through when tried again.
pub(super) fn broken(what: &'static str) -> Error {
    Error::transient(super::REACH, format!("the server breaks the git protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    fn reader(chunks: Vec<Vec<u8>>) -> PacketReader {
        let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        PacketReader::new(chunks.boxed(), Duration::from_secs(5))
    }

    async fn all(mut reader: PacketReader) -> Result<Vec<Packet>> {
        let mut packets = Vec::new();
        while let Some(packet) = reader.next().await? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[tokio::test]
    async fn packets_are_read_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        put(&mut bytes, "version 2\n");
        put_delimiter(&mut bytes);
        put(&mut bytes, "");
        put_flush(&mut bytes);
        let expected = [
            Packet::Data(Bytes::from_static(b"version 2\n")),
            Packet::Delimiter,
            Packet::Data(Bytes::new()),
            Packet::Flush,
        ];
        for size in 1..bytes.len() {
            let chunks = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(all(reader(chunks)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn lengths_that_cannot_be_are_refused() {
        let no_number = "a packet's length is not hexadecimal";
        let cut_off = "the answer ends within a packet";
        for (bytes, what) in [
            ("0003", "a packet's length is 3"),
            ("fffff", "a packet is longer than 65520 bytes"),
            ("zzzz", no_number),
            ("+004", no_number),
            ("-001", no_number),
            ("00", cut_off),
            ("0009abc", cut_off),
        ] {
            let error = all(reader(vec![bytes.into()])).await.unwrap_err();
            let message = format!("the server breaks the git protocol: {what}");
            assert_eq!(error.message(), message, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up() {
        let mut reader = PacketReader::new(stream::pending().boxed(), Duration::from_secs(30));
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), workflows_core::ErrorKind::Transient);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_packets_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let _ = runtime.unwrap().block_on(all(reader(vec![bytes])));
        }
    }
}
