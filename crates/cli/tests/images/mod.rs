//! `copy` and `inspect` of images, with the programs that people have: what they push we copy, and what we copy they
//! read and run.

mod access;
mod deltas;
mod engines;
mod help;
mod large;
mod restarts;
mod shown;
mod site;
