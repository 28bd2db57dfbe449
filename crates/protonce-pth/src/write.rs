//! Checkpoints that PyTorch's and numpy's own loaders accept.

use std::io::{self, Write};

use crate::Dtype;
use crate::archive::Writer;

/// What a checkpoint is made of.
#[derive(Debug, Clone)]
pub enum Item<'a> {
    /// A whole number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(&'a str),
    /// A dict with text keys, in this order.
    Dict(Vec<(&'a str, Item<'a>)>),
    /// A tensor: its type, shape, and numbers, little-endian in row order.
    Tensor(Dtype, &'a [u64], &'a [u8]),
}

/// Writes `root` as `torch.save` does since 1.6, so that `torch.load(…, weights_only=True)` reads
/// it. `name` is the folder inside the archive.
///
/// # Errors
/// When writing fails, or there is more than the 4 GiB that such an archive can hold.
pub fn write_zip(out: impl Write, name: &str, root: &Item<'_>) -> io::Result<()> {
    let mut pickler = Pickler { bytes: b"\x80\x02".to_vec(), tensors: Vec::new(), numpy: false };
    pickler.item(root)?;
    pickler.bytes.push(b'.');
    let mut archive = Writer::new(out);
    archive.add(&format!("{name}/data.pkl"), &pickler.bytes)?;
    archive.add(&format!("{name}/byteorder"), b"little")?;
    for (number, data) in pickler.tensors.into_iter().enumerate() {
        archive.add(&format!("{name}/data/{number}"), data)?;
    }
    archive.add(&format!("{name}/version"), b"3\n")?;
    archive.finish()
}

/// Writes `root` as one pickle in which every tensor is a numpy array, as detectron2 reads its
/// model zoo.
///
/// # Errors
/// When writing fails, or a tensor is bfloat16, which numpy does not know.
pub fn write_numpy(mut out: impl Write, root: &Item<'_>) -> io::Result<()> {
    let mut pickler = Pickler { bytes: b"\x80\x03".to_vec(), tensors: Vec::new(), numpy: true };
    pickler.item(root)?;
    pickler.bytes.push(b'.');
    out.write_all(&pickler.bytes)?;
    out.flush()
}

struct Pickler<'a> {
    bytes: Vec<u8>,
    /// The numbers that lie outside the pickle.
    tensors: Vec<&'a [u8]>,
    numpy: bool,
}

impl<'a> Pickler<'a> {
    fn item(&mut self, item: &Item<'a>) -> io::Result<()> {
        match item {
            Item::Int(number) => self.int(*number),
            Item::Bool(value) => self.bytes.push(if *value { b'\x88' } else { b'\x89' }),
            Item::Text(text) => self.text(text)?,
            Item::Dict(entries) => {
                self.bytes.extend(b"}(");
                for (key, value) in entries {
                    self.text(key)?;
                    self.item(value)?;
                }
                self.bytes.push(b'u');
            }
            Item::Tensor(dtype, shape, data) if self.numpy => self.array(*dtype, shape, data)?,
            Item::Tensor(dtype, shape, data) => self.tensor(*dtype, shape, data)?,
        }
        Ok(())
    }

    /// torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())
    fn tensor(&mut self, dtype: Dtype, shape: &[u64], data: &'a [u8]) -> io::Result<()> {
        self.bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        self.bytes.push(b'(');
        self.text("storage")?;
        self.bytes.extend(format!("ctorch\n{}\n", dtype.storage()).as_bytes());
        self.text(&self.tensors.len().to_string())?;
        self.text("cpu")?;
        self.int((data.len() as u64 / dtype.size()) as i64);
        self.bytes.extend(b"tQ");
        self.int(0);
        self.sizes(shape);
        let mut strides = vec![1; shape.len()];
        for dimension in (1..shape.len()).rev() {
            strides[dimension - 1] = strides[dimension] * shape[dimension];
        }
        self.sizes(&strides);
        self.bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.tensors.push(data);
        Ok(())
    }

    /// numpy.core.multiarray._reconstruct(ndarray, (0,), b'b'), then its state: version, shape, type,
    /// whether in column order, numbers. numpy 2 still answers to the old name of the module, and
    /// numpy 1 knows no other.
    fn array(&mut self, dtype: Dtype, shape: &[u64], data: &[u8]) -> io::Result<()> {
        let Some(name) = dtype.numpy() else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "numpy has no bfloat16"));
        };
        let length = u32::try_from(data.len());
        let length = length.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n");
        self.sizes(&[0]);
        self.bytes.extend(b"C\x01b\x87R(");
        self.int(1);
        self.sizes(shape);
        self.bytes.extend(b"cnumpy\ndtype\n");
        self.text(name)?;
        self.bytes.extend(b"\x89\x88\x87R(");
        self.int(3);
        self.text(if dtype.size() == 1 { "|" } else { "<" })?;
        self.bytes.extend(b"NNN");
        self.int(-1);
        self.int(-1);
        self.int(0);
        self.bytes.extend(b"tb\x89B");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(data);
        self.bytes.extend(b"tb");
        Ok(())
    }

    fn sizes(&mut self, sizes: &[u64]) {
        self.bytes.push(b'(');
        for &size in sizes {
            self.int(size as i64);
        }
        self.bytes.push(b't');
    }

    fn int(&mut self, number: i64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.bytes.push(b'J');
                self.bytes.extend(number.to_le_bytes());
            }
            Err(_) => {
                self.bytes.extend(b"\x8a\x08");
                self.bytes.extend(number.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let length = u32::try_from(text.len());
        let length = length.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.bytes.push(b'X');
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text.as_bytes());
        Ok(())
    }
}
