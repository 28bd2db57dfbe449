//! libtorch's c10d: a store of keys and values, bytes from process to process, and sums on GPUs.
//!
//! The C++ half is `c10d.cpp`. A message of libtorch comes out as it is; what it means is said where it is
//! known what was going on.

use std::ffi::{CString, c_char, c_int, c_void};
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use protonce_encoder::message::Message;

/// `Group` of c10d.cpp.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// `Joining` of c10d.cpp.
#[repr(C)]
struct RawJoining {
    host: *const c_char,
    prefix: *const c_char,
    interface_name: *const c_char,
    address: *const c_char,
    timeout_ms: i64,
    rank: i32,
    size: i32,
    port: i32,
    serve: i32,
}

/// `Parcel` of c10d.cpp.
#[repr(C)]
struct RawParcel {
    bytes: *mut c_void,
    length: i64,
    process: i32,
    tag: i32,
}

type Take = unsafe extern "C" fn(*mut c_void, *const u8, usize);

unsafe extern "C" {
    fn protonce_world_join(joining: *const RawJoining, message: *mut Message) -> *mut Handle;
    fn protonce_world_connect(
        group: *mut Handle,
        joining: *const RawJoining,
        timeout_ms: i64,
        message: *mut Message,
    );
    fn protonce_world_connect_gpu(
        group: *mut Handle,
        device: i32,
        timeout_ms: i64,
        message: *mut Message,
    );
    fn protonce_world_leave(group: *mut Handle, message: *mut Message);
    fn protonce_world_drop(group: *mut Handle);
    fn protonce_world_exchange(
        group: *mut Handle,
        sent: *const RawParcel,
        sent_count: usize,
        received: *const RawParcel,
        received_count: usize,
        message: *mut Message,
    );
    fn protonce_world_sum(group: *mut Handle, tensor: *const C_tensor, message: *mut Message);
    fn protonce_world_set(
        group: *mut Handle,
        key: *const c_char,
        bytes: *const u8,
        length: usize,
        message: *mut Message,
    );
    fn protonce_world_get(
        group: *mut Handle,
        key: *const c_char,
        timeout_ms: i64,
        take: Take,
        context: *mut c_void,
        message: *mut Message,
    );
    fn protonce_world_check(group: *mut Handle, key: *const c_char, message: *mut Message)
    -> c_int;
}

/// Who joins whom, and where.
pub(super) struct Joining<'a> {
    pub(super) rank: usize,
    pub(super) size: usize,
    /// Where the store is.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// Whether this process holds it.
    pub(super) serve: bool,
    /// Put before every key.
    pub(super) prefix: &'a str,
}

/// This process's network card.
pub(super) enum Card<'a> {
    /// By the name of its interface.
    Interface(&'a str),
    /// By its address.
    Address(&'a str),
}

/// Bytes for a process, the number of which comes first.
pub(super) type Sent<'a> = (usize, &'a [u8]);

/// Room for the bytes that come from a process, the number of which comes first.
pub(super) type Received<'a> = (usize, &'a mut [u8]);

/// This process's end of the connections to all others.
pub(super) struct Group(*mut Handle);

// SAFETY: c10d locks what its threads share, and takes calls from any thread; calls that must come in
// order are made by `World` in order.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// Goes to the store, and opens it where `joining` says so. Waits for it `timeout` at most.
    pub(super) fn join(joining: &Joining, timeout: Duration) -> Result<Group, String> {
        let [host, prefix, empty] = [joining.host, joining.prefix, ""].map(c_string);
        let raw = RawJoining {
            host: host.as_ptr(),
            prefix: prefix.as_ptr(),
            interface_name: empty.as_ptr(),
            address: empty.as_ptr(),
            timeout_ms: milliseconds(timeout),
            rank: joining.rank as i32,
            size: joining.size as i32,
            port: i32::from(joining.port),
            serve: i32::from(joining.serve),
        };
        let mut message = Message::EMPTY;
        // SAFETY: strings and numbers that live through the call.
        let group = unsafe { protonce_world_join(&raw, &mut message) };
        message.result()?;
        Ok(Group(group))
    }

    /// Connects to every other process through `card`. Later calls wait `timeout` at most.
    pub(super) fn connect(&self, card: &Card, timeout: Duration) -> Result<(), String> {
        let [interface_name, address] = match card {
            Card::Interface(name) => [name, ""],
            Card::Address(address) => ["", address],
        }
        .map(c_string);
        let empty = c_string("");
        let raw = RawJoining {
            host: empty.as_ptr(),
            prefix: empty.as_ptr(),
            interface_name: interface_name.as_ptr(),
            address: address.as_ptr(),
            timeout_ms: milliseconds(timeout),
            rank: 0,
            size: 0,
            port: 0,
            serve: 0,
        };
        let mut message = Message::EMPTY;
        // SAFETY: a live group; strings and numbers that live through the call.
        unsafe { protonce_world_connect(self.0, &raw, milliseconds(timeout), &mut message) };
        message.result()
    }

    /// Connects GPU number `device` to those of the other processes.
    pub(super) fn connect_gpu(&self, device: usize, timeout: Duration) -> Result<(), String> {
        let mut message = Message::EMPTY;
        let timeout = milliseconds(timeout);
        // SAFETY: a live group, and numbers.
        unsafe { protonce_world_connect_gpu(self.0, device as i32, timeout, &mut message) };
        message.result()
    }

    /// Ends the connections, which the others notice at once. The store stays.
    pub(super) fn leave(&self) {
        let mut message = Message::EMPTY;
        // SAFETY: a live group.
        unsafe { protonce_world_leave(self.0, &mut message) };
    }

    /// Sends and receives, all at once, until everything has gone and come. Each receiver must know the
    /// length of what comes: another one aborts it.
    pub(super) fn exchange(&self, sent: &[Sent], received: &mut [Received]) -> Result<(), String> {
        // gloo never writes to what is sent.
        let sent = parcels(
            sent.iter()
                .map(|(process, bytes)| (*process, bytes.as_ptr().cast_mut().cast(), bytes.len())),
        );
        let received = parcels(
            received
                .iter_mut()
                .map(|(process, bytes)| (*process, bytes.as_mut_ptr().cast(), bytes.len())),
        );
        let mut message = Message::EMPTY;
        // SAFETY: a live group; memory that is borrowed, exclusively where it is written, until the call
        // returns, and of which gloo keeps no pointer once the work that it belongs to is dropped.
        unsafe {
            protonce_world_exchange(
                self.0,
                sent.as_ptr(),
                sent.len(),
                received.as_ptr(),
                received.len(),
                &mut message,
            );
        }
        message.result()
    }

    /// Puts the sum over all processes in the place of `tensor`, on the GPU of `connect_gpu`.
    pub(super) fn sum_on_gpu(&self, tensor: &mut Tensor) -> Result<(), String> {
        let mut message = Message::EMPTY;
        // SAFETY: a live group and a live tensor, borrowed exclusively.
        unsafe { protonce_world_sum(self.0, tensor.as_ptr(), &mut message) };
        message.result()
    }

    /// Puts a value into the store.
    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let (key, mut message) = (c_string(key), Message::EMPTY);
        // SAFETY: a live group; memory that the callee copies.
        unsafe {
            protonce_world_set(self.0, key.as_ptr(), value.as_ptr(), value.len(), &mut message);
        }
        message.result()
    }

    /// The value of `key` in the store, for which it waits `timeout` at most.
    pub(super) fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        /// # Safety
        /// `context` is the vector below, `bytes` are `length` ones.
        unsafe extern "C" fn take(context: *mut c_void, bytes: *const u8, length: usize) {
            if length > 0 {
                // SAFETY: see above.
                unsafe {
                    let value = &mut *context.cast::<Vec<u8>>();
                    value.extend_from_slice(std::slice::from_raw_parts(bytes, length));
                }
            }
        }
        let (key, mut message, mut value) = (c_string(key), Message::EMPTY, Vec::new());
        // SAFETY: a live group; `take` is given the vector that it expects.
        unsafe {
            protonce_world_get(
                self.0,
                key.as_ptr(),
                milliseconds(timeout),
                take,
                (&raw mut value).cast(),
                &mut message,
            );
        }
        message.result()?;
        Ok(value)
    }

    /// Whether `key` has been set.
    pub(super) fn check(&self, key: &str) -> Result<bool, String> {
        let (key, mut message) = (c_string(key), Message::EMPTY);
        // SAFETY: a live group.
        let found = unsafe { protonce_world_check(self.0, key.as_ptr(), &mut message) };
        message.result()?;
        Ok(found != 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `protonce_world_join`, and not used again.
        unsafe { protonce_world_drop(self.0) };
    }
}

/// What there is to send, or to receive: nothing is not sent at all. Parcels between the same two processes
/// are numbered, on both sides in the same order.
fn parcels(memory: impl Iterator<Item = (usize, *mut c_void, usize)>) -> Vec<RawParcel> {
    let mut parcels: Vec<RawParcel> = Vec::new();
    for (process, bytes, length) in memory.filter(|(.., length)| *length > 0) {
        let process = process as i32;
        let tag = parcels.iter().filter(|parcel| parcel.process == process).count() as i32;
        parcels.push(RawParcel { bytes, length: length as i64, process, tag });
    }
    parcels
}

fn milliseconds(time: Duration) -> i64 {
    time.as_millis().min(i32::MAX as u128) as i64
}

/// `text` up to a zero, of which names and addresses have none.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}
