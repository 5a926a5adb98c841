//! The only system calls of Coracle (Linux).
//!
//! Everything that depends on how the kernel behaves is here, and nothing else: opening a file beneath a
//! directory that somebody else wrote ([`beneath`]), output that appears only when it is complete
//! ([`publish`]), unnamed temporary files ([`spool`]), files to go on with ([`resume`]), locks
//! between processes ([`lock`]), making many files durable at once ([`sync`]), making a tree of files ([`tree`]), facts about files and file systems
//! ([`mod@file`]), what the process used so far ([`usage`]), signals ([`interrupt`]) and waiting for input ([`wait`]).
//!
//! The crate knows no format and depends on no other crate of the workspace. It has no `unsafe` code: the
//! calls come from rustix and signal-hook.

pub mod beneath;
pub mod file;
pub mod interrupt;
pub mod lock;
pub mod publish;
pub mod resume;
pub mod spool;
pub mod sync;
pub mod tree;
pub mod usage;
pub mod wait;
