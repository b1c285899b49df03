//! stand-in
use crate::config::ServeArgs; use crate::exit_code::ExitCode; use crate::failure::Failure;
pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    crate::log::init();
    let cache = std::path::PathBuf::from("/tmp/wrun-cache"); std::fs::create_dir_all(&cache).unwrap();
    let p = crate::engine::prepare(args, &cache)?;
    let l = std::net::TcpListener::bind(p.config.addrs[0]).unwrap(); l.set_nonblocking(true).unwrap();
    eprintln!("http://{}/", l.local_addr().unwrap());
    let (a, b) = crate::ipc::Channel::pair().unwrap();
    std::mem::forget(a);
    Ok(crate::worker::run(crate::worker::Boot { slot: 0, generation: 1, cpu: None, config: p.config, code: p.code, listeners: vec![l], channel: b }))
}
