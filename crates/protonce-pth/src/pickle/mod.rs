//! Pickles, parsed without the ability to call anything.
//!
//! A pickle goes in as bytes; a [`Pickle`] comes out: objects in one vector that refer to each other by
//! number, so that a file can share objects as it likes and never makes this program recurse. The
//! [`machine`] runs the pickle's [instructions](opcode) and makes [objects](object); [`calls`] stands
//! where Python would call a function, and makes tensors and plain objects of those that [`names`]
//! knows; a [`Value`] walks the result.

mod calls;
mod cycles;
mod input;
mod machine;
mod names;
mod object;
mod opcode;
mod value;

use machine::Machine;
pub(crate) use object::Inline;
use object::{Id, Object, Span};
pub use value::Value;

use crate::{Dtype, PthError};

/// The objects of one pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    bytes: Vec<u8>,
    objects: Vec<Object>,
    root: Id,
    passed_over: Vec<String>,
}

impl Pickle {
    /// Parses the pickle at the start of `bytes`, all of which it keeps, and says where it ends.
    pub(crate) fn parse(bytes: Vec<u8>, start: usize) -> Result<(Pickle, usize), PthError> {
        // Positions in the pickle are kept in 32 bits.
        if bytes.len() as u64 > u64::from(u32::MAX) {
            let what = format!("a pickle of {} bytes", bytes.len());
            return Err(PthError::TooLarge { what, limit: u32::MAX.into() });
        }
        let mut machine = Machine::new(&bytes, start);
        let root = machine.run()?;
        let end = machine.input.position();
        let (objects, passed_over) = (machine.objects, machine.passed_over);
        let pickle = Pickle { bytes, objects, root, passed_over };
        cycles::refuse(&pickle)?;
        Ok((pickle, end))
    }

    /// Hands the bytes back, to parse another pickle after this one.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Forgets the bytes after `end`, where the pickle ends.
    pub(crate) fn truncate(&mut self, end: usize) {
        self.bytes.truncate(end);
        self.bytes.shrink_to_fit();
    }

    /// The numbers of a numpy array.
    pub(crate) fn inline(&self, inline: Inline) -> &[u8] {
        self.span(inline.0)
    }

    /// The object that was saved.
    pub(crate) fn root(&self) -> Value<'_> {
        Value { pickle: self, id: self.root }
    }

    /// Names of classes and functions without a meaning here, whose objects were passed over.
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Key, type and count of numbers of every storage that is mentioned.
    pub(crate) fn storages(&self) -> impl Iterator<Item = (&str, Dtype, u64)> {
        self.objects.iter().filter_map(|object| match *object {
            Object::Storage { dtype, key, count } => Some((self.text(key), dtype, count)),
            _ => None,
        })
    }

    /// Every tensor.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = Value<'_>> {
        let ids = (0..).zip(&self.objects);
        ids.filter(|(_, object)| matches!(object, Object::Tensor { .. }))
            .map(|(id, _)| Value { pickle: self, id })
    }

    fn text(&self, span: Span) -> &str {
        // Checked when the object was made.
        std::str::from_utf8(self.span(span)).unwrap_or_default()
    }

    fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_OBJECTS;

    fn parse(bytes: &[u8]) -> Result<Pickle, PthError> {
        Pickle::parse(bytes.to_vec(), 0).map(|(pickle, _)| pickle)
    }

    #[test]
    fn containers_and_numbers_come_out_as_they_went_in() {
        // pickle.dumps({"a": [1, -2, 300, 70000, 2.5, None, True], "b": ("x", b"y")}, 2..=4), by hand
        let bytes =
            b"\x80\x04}(X\x01\x00\x00\x00a](K\x01J\xfe\xff\xff\xffM\x2c\x01J\x70\x11\x01\x00\
            G\x40\x04\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x8c\x01xC\x01y\x86u.";
        let pickle = parse(bytes).unwrap();
        let list: Vec<String> =
            pickle.root().get("a").unwrap().items().unwrap().map(|v| v.to_string()).collect();
        assert_eq!(list, ["1", "-2", "300", "70000", "2.5", "None", "true"]);
        assert!(pickle.root().get("c").is_none());
    }

    #[test]
    fn what_could_run_code_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
            (b"(S'ls'\nios\nsystem\n.", "STRING"),
            (b"\x80\x02(ios\nsystem\n.", "INST"),
            (b"\x80\x02(c__builtin__\ngetattr\no.", "getattr"),
            (b"\x80\x02\x82\x01.", "EXT1"),
        ];
        for (bytes, name) in cases {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("byte "), "{error}");
        }
    }

    #[test]
    fn an_object_that_contains_itself_is_refused() {
        for bytes in [
            &b"\x80\x02]q\x00h\x00a."[..],
            b"\x80\x02}q\x00K\x01h\x00s.",
            b"\x80\x02]q\x00(]q\x01h\x00ah\x01e.",
        ] {
            assert!(parse(bytes).unwrap_err().to_string().contains("contains itself"));
        }
        // Sharing is no cycle, however often.
        assert!(parse(b"\x80\x02]q\x00](h\x00h\x00e.").is_ok());
    }

    #[test]
    fn a_broken_pickle_is_an_error() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"\x80\x02.",
            b"\x80\x09N.",
            b"\x80\x02a.",
            b"\x80\x02Na.",
            b"\x80\x02]N(e0.",
            b"\x80\x02}NNNu.",
            b"\x80\x02h\x05.",
            b"\x80\x02X\xff\xff\xff\xffa.",
            b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"\x80\x02(N\x86.",
            b"\x80\x02e.",
            b"\x80\x02NNR.",
            b"\x80\x02NQ.",
            b"\x80\x02NNb.",
            b"\x80\x02ctorch\nSize",
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(matches!(error, PthError::Pickle { .. }), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn more_objects_than_any_checkpoint_has_are_refused() {
        let many = [&b"\x80\x02"[..], &vec![b']'; MAX_OBJECTS + 1], b"."].concat();
        assert!(matches!(parse(&many), Err(PthError::TooLarge { .. })));
    }
}
