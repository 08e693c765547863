//! A look at a pack before it is indexed: how many objects it has and how large they become
//! (<https://git-scm.com/docs/gitformat-pack>). A few kilobytes can unpack to gigabytes.

use std::io::{self, BufRead, Read};

use flate2::bufread::ZlibDecoder;
use workflows_core::{Error, Result};

/// What a pack may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackLimits {
    /// Objects.
    pub(super) objects: u32,
    /// Bytes of one object when unpacked.
    pub(super) object_bytes: u64,
    /// Bytes of all objects when unpacked.
    pub(super) total_bytes: u64,
}

/// Reads a pack through and refuses one that is over a limit. Returns the number of its objects.
pub(super) fn inspect(pack: &mut impl BufRead, limits: PackLimits) -> Result<u32> {
    let mut header = [0_u8; 12];
    pack.read_exact(&mut header).map_err(cut)?;
    let [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, a, b, c, d] = header else {
        return Err(super::pkt::broken("what it sends is no pack"));
    };
    let count = u32::from_be_bytes([a, b, c, d]);
    if count > limits.objects {
        return Err(over(format!("the pack has {count} objects, more than {}", limits.objects)));
    }
    let mut left = limits.total_bytes;
    for _ in 0..count {
        let size = inspect_object(pack, limits.object_bytes)?;
        left = left.checked_sub(size).ok_or_else(|| {
            over(format!("the pack unpacks to more than {} bytes", limits.total_bytes))
        })?;
    }
    Ok(count)
}

/// The number of bytes that an object takes when unpacked: its own, or what its delta makes.
fn inspect_object(pack: &mut impl BufRead, most: u64) -> Result<u64> {
    const OFFSET_DELTA: u8 = 6;
    const NAMED_DELTA: u8 = 7;
    let first = byte(pack)?;
    let kind = (first >> 4) & 7;
    let mut size = u64::from(first & 15);
    let mut shift = 4;
    let mut more = first & 128 != 0;
    while more {
        let next = byte(pack)?;
        size |= shifted(next, shift)?;
        shift += 7;
        more = next & 128 != 0;
    }
    let check = |size: u64| {
        if size > most {
            return Err(over(format!("an object of {size} bytes is larger than {most}")));
        }
        Ok(size)
    };
    check(size)?;
    match kind {
        OFFSET_DELTA => while byte(pack)? & 128 != 0 {},
        NAMED_DELTA => {
            let mut base = [0_u8; 20];
            pack.read_exact(&mut base).map_err(cut)?;
        }
        _ => {}
    }
    let mut content = ZlibDecoder::new(&mut *pack).take(size.saturating_add(1));
    let mut result = size;
    if kind == OFFSET_DELTA || kind == NAMED_DELTA {
        length(&mut content)?;
        result = check(length(&mut content)?)?;
    }
    io::copy(&mut content, &mut io::sink()).map_err(cut)?;
    let taken = size.saturating_add(1) - content.limit();
    if taken != size {
        return Err(super::pkt::broken("an object of the pack is not as long as it says"));
    }
    Ok(result.max(size))
}

/// A length at the beginning of a delta.
fn length(delta: &mut impl Read) -> Result<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let next = byte(delta)?;
        value |= shifted(next, shift)?;
        shift += 7;
        if next & 128 == 0 {
            return Ok(value);
        }
    }
}

fn shifted(byte: u8, shift: u32) -> Result<u64> {
    let bits = u64::from(byte & 127);
    match bits.checked_shl(shift) {
        Some(value) if value >> shift == bits => Ok(value),
        _ => Err(over("an object's length does not fit into 64 bits".to_owned())),
    }
}

fn byte(from: &mut impl Read) -> Result<u8> {
    let mut one = [0_u8; 1];
    from.read_exact(&mut one).map_err(cut)?;
    let [one] = one;
    Ok(one)
}

fn cut(error: io::Error) -> Error {
    super::pkt::broken("the pack cannot be read").caused_by(error)
}

fn over(what: String) -> Error {
    Error::invalid(super::REACH, format!("{what}; raise the driver's limit if this is meant"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;
    use workflows_core::ErrorKind;

    use super::*;

    const LIMITS: PackLimits =
        PackLimits { objects: 10, object_bytes: 1_000_000, total_bytes: 1_500_000 };

    fn varint(mut value: u64, first_bits: u32, tag: u8) -> Vec<u8> {
        let mut out = vec![tag | (value & ((1 << first_bits) - 1)) as u8];
        value >>= first_bits;
        while value > 0 {
            *out.last_mut().unwrap() |= 128;
            out.push((value & 127) as u8);
            value >>= 7;
        }
        out
    }

    fn pack(count: u32, objects: &[(u8, u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = b"PACK\0\0\0\x02".to_vec();
        out.extend(count.to_be_bytes());
        for (kind, size, content) in objects {
            out.extend(varint(*size, 4, kind << 4));
            if *kind == 7 {
                out.extend([9; 20]);
            }
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
            zlib.write_all(content).unwrap();
            out.extend(zlib.finish().unwrap());
        }
        out.extend([0; 20]);
        out
    }

    fn refused(bytes: &[u8]) -> (ErrorKind, String) {
        let error = inspect(&mut &*bytes, LIMITS).unwrap_err();
        (error.kind(), error.message().to_owned())
    }

    #[test]
    fn a_pack_within_the_limits_passes() {
        let zeros = vec![0; 700_000];
        let bytes = pack(2, &[(3, 700_000, zeros.clone()), (3, 700_000, zeros)]);
        assert_eq!(inspect(&mut &*bytes, LIMITS).unwrap(), 2);
    }

    #[test]
    fn bombs_are_refused_before_they_are_unpacked() {
        let zeros = vec![0; 900_000];
        let one_too_large = pack(1, &[(3, 2_000_000, vec![0; 2_000_000])]);
        let together = pack(2, &[(3, 900_000, zeros.clone()), (3, 900_000, zeros.clone())]);
        let mut delta = varint(10, 7, 0);
        delta.extend(varint(1 << 40, 7, 0));
        let delta = pack(1, &[(7, delta.len() as u64, delta)]);
        let many = pack(11, &[]);
        for (bytes, what) in [
            (one_too_large, "an object of 2000000 bytes is larger than 1000000"),
            (together, "the pack unpacks to more than 1500000 bytes"),
            (delta, "an object of 1099511627776 bytes is larger than 1000000"),
            (many, "the pack has 11 objects, more than 10"),
        ] {
            assert!(bytes.len() < 5_000);
            let message = format!("{what}; raise the driver's limit if this is meant");
            assert_eq!(refused(&bytes), (ErrorKind::Invalid, message));
        }
        let longer_than_said = pack(1, &[(3, 100, zeros)]);
        let why =
            "the server breaks the git protocol: an object of the pack is not as long as it says";
        assert_eq!(refused(&longer_than_said), (ErrorKind::Transient, why.to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_pass_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut pack = b"PACK\0\0\0\x02\0\0\0\x05".to_vec();
            pack.extend(bytes);
            let _ = inspect(&mut &*pack, LIMITS);
        }
    }
}
