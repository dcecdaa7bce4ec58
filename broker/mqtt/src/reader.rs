//! A cursor over a packet's body. Every read is checked.

use crate::error::DecodeError;
use crate::topic::has_control;

type Result<T> = std::result::Result<T, DecodeError>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        let (head, tail) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// Binary data (1.5.6).
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A string whose characters somebody else checks.
    #[inline]
    pub(crate) fn raw_string(&mut self) -> Result<&'a str> {
        // [MQTT-1.5.4-1]; a byte order mark is kept [MQTT-1.5.4-3].
        std::str::from_utf8(self.binary()?).map_err(|_| DecodeError::Utf8)
    }

    /// A string (1.5.4). [MQTT-1.5.4-2] forbids U+0000; control characters should not be there, and aren't taken.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let text = self.raw_string()?;
        if has_control(text) {
            return Err(DecodeError::Utf8);
        }
        Ok(text)
    }

    /// A variable byte integer (1.5.5).
    #[inline]
    pub(crate) fn variable(&mut self) -> Result<u32> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7F);
        for shift in [7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                // [MQTT-1.5.5-1] the shortest form.
                return if byte == 0 { Err(DecodeError::VariableInteger) } else { Ok(value) };
            }
        }
        Err(DecodeError::VariableInteger)
    }

    /// What a length-prefixed property section contains.
    #[inline]
    pub(crate) fn section(&mut self) -> Result<&'a [u8]> {
        let length = self.variable()?;
        self.take(length as usize)
    }
}
