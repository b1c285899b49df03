//! stand-in
use crate::exit_code::ExitCode; use crate::failure::Failure; use std::path::Path;
pub(super) fn ps(_: &Path, _: bool) -> Result<ExitCode, Failure> { unimplemented!() }
pub(super) fn reload(_: &Path, _: bool) -> Result<ExitCode, Failure> { unimplemented!() }
pub(super) fn scale(_: &Path, _: usize) -> Result<ExitCode, Failure> { unimplemented!() }
pub(super) fn stop(_: &Path) -> Result<ExitCode, Failure> { unimplemented!() }
