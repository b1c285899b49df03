//! What the kernel has to confine processes with.

use nix::errno::Errno;
use nix::sys::utsname::uname;

/// The flag that has landlock_create_ruleset(2) answer with a version and make nothing.
const CREATE_RULESET_VERSION: u32 = 1;

/// Returns the version of Landlock.
pub fn landlock_abi() -> Result<i32, Errno> {
    let no_rules = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no rules, and makes no descriptor.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            no_rules,
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    let version = Errno::result(version)?;
    Ok(i32::try_from(version).unwrap_or(i32::MAX))
}

/// Returns the kernel's release, `6.18.44` for one, and the two numbers that it begins with.
pub fn release() -> (String, Option<(u32, u32)>) {
    let Ok(name) = uname() else {
        return (String::new(), None);
    };
    let release = name.release().to_string_lossy().into_owned();
    let numbers = version(&release);
    (release, numbers)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_first_two_numbers() {
        assert_eq!(version("6.18.44-generic"), Some((6, 18)));
        assert_eq!(version("5.9"), Some((5, 9)));
        assert_eq!(version("linux"), None);
    }
}
