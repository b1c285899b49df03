//! Places and addresses that a fuzzer chooses: what is not exactly what was granted is not covered, and no address is public
//! that the standard library knows to be something else.

use super::{Outbound, is_public, place};
use crate::config::{Grant, Limits};
use http::Uri;
use std::net::IpAddr;

/// Takes a grant, and in a second line the target of a request or an address.
pub(crate) fn outbound(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (grant, target) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(address) = target.parse() {
        assert!(!is_public(address) || !is_special(address), "{address}");
    }
    let Ok(grant) = grant.parse::<Grant>() else {
        return;
    };
    let shown = grant.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(&grant), "{shown}");
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    if !Outbound::new(vec![grant.clone()], Limits::default()).covers(&uri) {
        return;
    }
    let Some((https, host, port)) = place(&uri) else {
        panic!("{uri} is covered and leads nowhere");
    };
    let scheme = if https { "https" } else { "http" };
    let exactly = format!("{scheme}://{}:{port}", host.to_ascii_lowercase());
    assert_eq!(exactly, shown, "{uri}");
    assert!(
        !uri.authority().is_some_and(|it| it.as_str().contains('@')),
        "{uri}"
    );
}

/// Tells of an address that it is not one of the internet's, as far as the standard library can tell.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.to_ipv4().is_some()
        }
    }
}
