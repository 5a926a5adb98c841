//! `copy` and `inspect` of images, with the programs that people have: what they push we copy, and what we copy they
//! read and run. Pulls, and what is left when they are killed.

mod access;
mod balena;
mod bundles;
mod chunked;
mod deltas;
mod engines;
mod help;
mod hostile;
mod killed;
mod large;
mod packages;
mod peers;
mod pulls;
mod restarts;
mod rootfs;
mod shown;
mod site;
mod stargz;
mod subset;
mod trust;
mod updates;
