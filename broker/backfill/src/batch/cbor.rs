//! Batches in CBOR: `[record, …]`, or `{"records": [record, …], "lost": [[boot, from, to], …]}`; a record is a map by names or an array of five.
//!
//! One pass, and nothing nests but what is listed here: a field that isn't known is passed over if it is a number, text, bytes or a simple value.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::{BatchError, Draft, Field, Lost, RecordError, Slot};

/// A list or map, and how many items are left; None is until a break.
type Left = Option<u64>;

pub(super) fn read(bytes: &[u8], draft: &mut Draft<'_>) -> Result<(), BatchError> {
    let mut input = Decoder::new(bytes);
    match input.datatype().map_err(|_| BatchError::NotABatch)? {
        Type::Array | Type::ArrayIndef => read_records(&mut input, draft)?,
        Type::Map | Type::MapIndef => read_parts(&mut input, draft)?,
        _ => return Err(BatchError::NotABatch),
    }
    if draft.stopped.is_none() && input.position() < bytes.len() {
        draft.stopped = Some(RecordError::Trailing);
    }
    Ok(())
}

fn read_parts(input: &mut Decoder<'_>, draft: &mut Draft<'_>) -> Result<(), BatchError> {
    let mut left = input.map().map_err(|_| BatchError::NotABatch)?;
    let mut has_records = false;
    // What is cut off behind the records takes nothing from them.
    let bad = |has_records: bool| if has_records { Ok(()) } else { Err(BatchError::NotABatch) };
    loop {
        match more(input, &mut left) {
            Ok(true) => {}
            Ok(false) => return bad(has_records),
            Err(error) => {
                draft.stopped = Some(error);
                return bad(has_records);
            }
        }
        match input.str() {
            Ok("records") if !has_records => {
                has_records = true;
                read_records(input, draft)?;
                if draft.stopped.is_some() {
                    return Ok(());
                }
            }
            Ok("lost") => read_lost(input, draft).map_err(|()| BatchError::Lost)?,
            Ok(_) if pass_over(input).is_ok() => {}
            _ => {
                draft.stopped = Some(RecordError::Malformed);
                return bad(has_records);
            }
        }
    }
}

fn read_lost(input: &mut Decoder<'_>, draft: &mut Draft<'_>) -> Result<(), ()> {
    let mut left = input.array().map_err(|_| ())?;
    while more(input, &mut left).map_err(|_| ())? {
        let mut number = |first: bool| {
            if first && input.array().ok() != Some(Some(3)) {
                return Err(());
            }
            input.u64().map_err(|_| ())
        };
        let lost = Lost { boot: number(true)?, from: number(false)?, to: number(false)? };
        draft.push_lost(lost).map_err(|_| ())?;
    }
    Ok(())
}

fn read_records(input: &mut Decoder<'_>, draft: &mut Draft<'_>) -> Result<(), BatchError> {
    let mut left = input.array().map_err(|_| BatchError::NotABatch)?;
    loop {
        let next = more(input, &mut left).and_then(|more| if more { read_record(input).map(Some) } else { Ok(None) });
        match next.and_then(|slot| slot.map(|slot| draft.push(slot)).transpose()) {
            Ok(Some(())) => {}
            Ok(None) => return Ok(()),
            Err(error) => {
                draft.stopped = Some(error);
                return Ok(());
            }
        }
    }
}

/// Whether there is a next item.
#[inline]
fn more(input: &mut Decoder<'_>, left: &mut Left) -> Result<bool, RecordError> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None => match input.datatype() {
            Ok(Type::Break) => {
                input.set_position(input.position() + 1);
                Ok(false)
            }
            Ok(_) => Ok(true),
            Err(_) => Err(RecordError::CutShort),
        },
    }
}

fn read_record(input: &mut Decoder<'_>) -> Result<Slot, RecordError> {
    let mut slot = Slot { boot: 0, seq: 0, ts_ms: 0, topic: (0, 0), payload: (0, 0) };
    match input.datatype().map_err(|_| RecordError::CutShort)? {
        Type::Array => {
            if input.array().map_err(|error| fault(&error, RecordError::Malformed))? != Some(5) {
                return Err(RecordError::Malformed);
            }
            for field in Field::ALL {
                read_field(input, field, &mut slot)?;
            }
        }
        Type::Map | Type::MapIndef => read_map(input, &mut slot)?,
        _ => return Err(RecordError::Malformed),
    }
    Ok(slot)
}

fn read_map(input: &mut Decoder<'_>, slot: &mut Slot) -> Result<(), RecordError> {
    let mut left = input.map().map_err(|error| fault(&error, RecordError::Malformed))?;
    let mut seen = 0;
    while more(input, &mut left)? {
        let name = input.str().map_err(|error| fault(&error, RecordError::Malformed))?;
        match Field::named(name) {
            Some(field) if seen & field.bit() != 0 => return Err(RecordError::Twice(field)),
            Some(field) => {
                read_field(input, field, slot)?;
                seen |= field.bit();
            }
            None => pass_over(input)?,
        }
    }
    Field::missing(seen).map_or(Ok(()), |field| Err(RecordError::Missing(field)))
}

#[inline]
fn read_field(input: &mut Decoder<'_>, field: Field, slot: &mut Slot) -> Result<(), RecordError> {
    let wrong = |error: Error| fault(&error, RecordError::Wrong(field));
    match field {
        Field::Boot => slot.boot = input.u64().map_err(wrong)?,
        Field::Seq => slot.seq = input.u64().map_err(wrong)?,
        Field::Ts => slot.ts_ms = input.i64().map_err(wrong)?,
        Field::Topic => {
            let bytes = input.str().map_err(wrong)?.len();
            slot.topic = before(input, bytes);
        }
        Field::Payload => {
            let bytes = match input.datatype().map_err(wrong)? {
                Type::String => input.str().map_err(wrong)?.len(),
                _ => input.bytes().map_err(wrong)?.len(),
            };
            slot.payload = before(input, bytes);
        }
    }
    Ok(())
}

/// The bytes that were just read. Batches are far from 4 GiB.
fn before(input: &Decoder<'_>, bytes: usize) -> (u32, u32) {
    ((input.position() - bytes) as u32, bytes as u32)
}

/// The value of a field that isn't known.
fn pass_over(input: &mut Decoder<'_>) -> Result<(), RecordError> {
    use Type::{
        Bool, Bytes, F16, F32, F64, I8, I16, I32, I64, Int, Null, Simple, String, U8, U16, U32, U64, Undefined,
    };
    let malformed = |error: Error| fault(&error, RecordError::Malformed);
    match input.datatype().map_err(malformed)? {
        Bool | Null | Undefined | Simple | U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64 | Int | F16 | F32 | F64
        | Bytes | String => input.skip().map_err(malformed),
        _ => Err(RecordError::Malformed),
    }
}

fn fault(error: &Error, otherwise: RecordError) -> RecordError {
    if error.is_end_of_input() { RecordError::CutShort } else { otherwise }
}
