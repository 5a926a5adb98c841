//! `coracle store`.
use crate::args::StoreCommand;
use crate::failure::Failure;

/// Runs a subcommand.
pub fn run(_command: &StoreCommand) -> Result<(), Failure> {
    Err(Failure::usage("not yet"))
}
