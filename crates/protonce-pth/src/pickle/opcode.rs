//! The codes of the instructions, under the names of Python's `pickletools`.

// Version, frame and end.
pub(super) const PROTO: u8 = b'\x80';
pub(super) const FRAME: u8 = b'\x95';
pub(super) const STOP: u8 = b'.';

// The stack.
pub(super) const MARK: u8 = b'(';
pub(super) const POP: u8 = b'0';
pub(super) const POP_MARK: u8 = b'1';
pub(super) const DUP: u8 = b'2';

// Constants and numbers.
pub(super) const NONE: u8 = b'N';
pub(super) const NEWTRUE: u8 = b'\x88';
pub(super) const NEWFALSE: u8 = b'\x89';
pub(super) const BININT: u8 = b'J';
pub(super) const BININT1: u8 = b'K';
pub(super) const BININT2: u8 = b'M';
pub(super) const LONG1: u8 = b'\x8a';
pub(super) const LONG4: u8 = b'\x8b';
pub(super) const BINFLOAT: u8 = b'G';

// Text, bytes, and strings of Python 2, which are either.
pub(super) const BINUNICODE: u8 = b'X';
pub(super) const SHORT_BINUNICODE: u8 = b'\x8c';
pub(super) const BINUNICODE8: u8 = b'\x8d';
pub(super) const BINBYTES: u8 = b'B';
pub(super) const SHORT_BINBYTES: u8 = b'C';
pub(super) const BINBYTES8: u8 = b'\x8e';
pub(super) const BINSTRING: u8 = b'T';
pub(super) const SHORT_BINSTRING: u8 = b'U';

// Containers.
pub(super) const EMPTY_LIST: u8 = b']';
pub(super) const LIST: u8 = b'l';
pub(super) const APPEND: u8 = b'a';
pub(super) const APPENDS: u8 = b'e';
pub(super) const EMPTY_TUPLE: u8 = b')';
pub(super) const TUPLE: u8 = b't';
pub(super) const TUPLE1: u8 = b'\x85';
pub(super) const TUPLE2: u8 = b'\x86';
pub(super) const TUPLE3: u8 = b'\x87';
pub(super) const EMPTY_DICT: u8 = b'}';
pub(super) const DICT: u8 = b'd';
pub(super) const SETITEM: u8 = b's';
pub(super) const SETITEMS: u8 = b'u';
pub(super) const EMPTY_SET: u8 = b'\x8f';
pub(super) const FROZENSET: u8 = b'\x91';
pub(super) const ADDITEMS: u8 = b'\x90';

// Objects that are kept under a number and recalled.
pub(super) const BINPUT: u8 = b'q';
pub(super) const LONG_BINPUT: u8 = b'r';
pub(super) const MEMOIZE: u8 = b'\x94';
pub(super) const BINGET: u8 = b'h';
pub(super) const LONG_BINGET: u8 = b'j';

// Names, calls and what lies outside the pickle.
pub(super) const GLOBAL: u8 = b'c';
pub(super) const STACK_GLOBAL: u8 = b'\x93';
pub(super) const REDUCE: u8 = b'R';
pub(super) const NEWOBJ: u8 = b'\x81';
pub(super) const NEWOBJ_EX: u8 = b'\x92';
pub(super) const BUILD: u8 = b'b';
pub(super) const BINPERSID: u8 = b'Q';

/// Python's name of an instruction that is refused.
pub(super) fn name(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        b'\x82' => "EXT1",
        b'\x83' => "EXT2",
        b'\x84' => "EXT4",
        b'P' => "PERSID",
        b'\x96' => "BYTEARRAY8",
        b'\x97' => "NEXT_BUFFER",
        b'\x98' => "READONLY_BUFFER",
        // Protocols 0 and 1, which torch.save never used.
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'p' => "PUT",
        b'g' => "GET",
        other => return format!("{other:#04x}"),
    };
    name.to_owned()
}
