//! HTTP/1.1 as far as the load and the server behind Envoy need it.
//!
//! Twelve workers of Envoy are to be kept busy by what four cores can send and answer, so messages are written from memory as they are, and
//! of what comes only the length is read. For both sides of a request that takes 8 us outside the kernel, where a full client and server
//! took 19; the kernel takes some 25 either way, and Envoy 80 on the same busy machine.

use std::io;

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Header, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Headers that a message may have.
const MOST_HEADERS: usize = 48;
/// Room for one read.
const ROOM: usize = 16 * 1024;
/// What ends a chunk.
const LINE_END: u64 = 2;

/// A connection, and what was read from it but not used yet.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    read: BytesMut,
}

/// How long a message's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunks,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // Without it a small message may wait for an acknowledgement.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: BytesMut::with_capacity(ROOM),
        })
    }

    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// Reads a request to its end.
    pub(super) async fn skip_request(&mut self) -> io::Result<()> {
        let body = loop {
            let mut headers = [EMPTY_HEADER; MOST_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            if let Status::Complete(length) = request.parse(&self.read).map_err(malformed)? {
                let body = Body::of(request.headers)?;
                self.read.advance(length);
                break body;
            }
            self.fill().await?;
        };
        self.skip_body(body).await
    }

    /// Reads an answer to its end, and returns its status.
    pub(super) async fn skip_answer(&mut self) -> io::Result<u16> {
        let (status, body) = loop {
            let mut headers = [EMPTY_HEADER; MOST_HEADERS];
            let mut answer = httparse::Response::new(&mut headers);
            if let Status::Complete(length) = answer.parse(&self.read).map_err(malformed)? {
                let told = (answer.code.unwrap_or_default(), Body::of(answer.headers)?);
                self.read.advance(length);
                break told;
            }
            self.fill().await?;
        };
        self.skip_body(body).await?;
        Ok(status)
    }

    async fn skip_body(&mut self, body: Body) -> io::Result<()> {
        match body {
            Body::Bytes(bytes) => self.skip(bytes).await,
            Body::Chunks => loop {
                match httparse::parse_chunk_size(&self.read).map_err(malformed)? {
                    Status::Complete((line, bytes)) => {
                        self.read.advance(line);
                        self.skip(bytes.saturating_add(LINE_END)).await?;
                        if bytes == 0 {
                            return Ok(());
                        }
                    }
                    Status::Partial => self.fill().await?,
                }
            },
        }
    }

    async fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        loop {
            let here = self
                .read
                .len()
                .min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.read.advance(here);
            bytes -= here as u64;
            if bytes == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Reads more.
    async fn fill(&mut self) -> io::Result<()> {
        self.read.reserve(ROOM);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Body {
    fn of(headers: &[Header<'_>]) -> io::Result<Self> {
        let value = |name| {
            let header = headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name));
            header.map(|header| header.value)
        };
        if value("transfer-encoding").is_some() {
            return Ok(Self::Chunks);
        }
        let Some(length) = value("content-length") else {
            return Ok(Self::Bytes(0));
        };
        let length = std::str::from_utf8(length).ok();
        let length = length.and_then(|length| length.parse().ok());
        length.map(Self::Bytes).ok_or_else(|| malformed("length"))
    }
}

fn malformed(problem: impl std::fmt::Debug) -> io::Error {
    let problem = format!("not HTTP/1.1: {problem:?}");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What becomes of an answer that arrives in pieces.
    async fn read(pieces: &[&'static [u8]]) -> io::Result<Vec<u16>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut sender = TcpStream::connect(listener.local_addr()?).await?;
        let mut wire = Wire::new(listener.accept().await?.0)?;
        let write = async {
            for piece in pieces {
                sender.write_all(piece).await?;
                tokio::task::yield_now().await;
            }
            drop(sender);
            io::Result::Ok(())
        };
        let read = async {
            let mut statuses = Vec::new();
            loop {
                match wire.skip_answer().await {
                    Ok(status) => statuses.push(status),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(statuses)
        };
        let (written, statuses) = tokio::join!(write, read);
        written?;
        statuses
    }

    #[tokio::test]
    async fn answers_are_told_apart_however_they_are_cut() {
        let pieces: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nconte",
            b"nt-length: 4\r\n\r\ndo",
            b"neHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n1",
            b"\r\nx\r\n0\r",
            b"\n\r\nHTTP/1.1 503 no\r\n\r\n",
        ];
        assert_eq!(read(pieces).await.unwrap(), [200, 200, 503]);
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_error() {
        assert!(read(&[b"SSH-2.0-x\r\n\r\n"]).await.is_err());
        let length = b"HTTP/1.1 200 OK\r\ncontent-length: some\r\n\r\n";
        assert!(read(&[length]).await.is_err());
    }
}
