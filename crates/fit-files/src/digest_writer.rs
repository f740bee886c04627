//! A writer that computes the digest of the bytes written through it.

use crate::fit_record::FileDigest;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Passes bytes on to `inner`, and computes their count and SHA-256.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> DigestWriter<W> {
    /// A writer into `inner` with nothing written yet.
    pub fn new(inner: W) -> Self {
        DigestWriter {
            inner,
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    /// The digest of all that was written.
    pub fn finish(self) -> FileDigest {
        FileDigest {
            bytes: self.bytes,
            sha256: format!("{:x}", self.digest.finalize()),
        }
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.digest.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_was_taken() {
        // A writer that takes two bytes at a time: the digest must not run ahead of it.
        struct Slow(Vec<u8>);
        impl Write for Slow {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                let count = buffer.len().min(2);
                self.0.extend_from_slice(&buffer[..count]);
                Ok(count)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new());
        let mut writer = DigestWriter::new(&mut slow);
        writer.write_all(b"new!").unwrap();
        let digest = writer.finish();
        assert_eq!(digest.bytes, 4);
        // printf 'new!' | sha256sum
        assert_eq!(
            digest.sha256,
            "bdd1e524e5c90bee91a4f1ac4a087ca0012e36235ab24b5136d2a6388e7ad58b"
        );
        assert_eq!(slow.0, b"new!");
    }
}
