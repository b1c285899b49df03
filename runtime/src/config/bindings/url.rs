//! What a binding's URL says without being used: how many there are, what may be shown of it, whether it holds a secret.

/// Separates URLs of servers that know nothing of each other, where there may be several.
const SEPARATOR: char = ',';

/// Returns the URLs that a text holds. A comma within one is its own: only where another scheme follows does another begin.
pub fn each_url(text: &str) -> Vec<&str> {
    let mut urls = Vec::new();
    let mut begin = 0;
    for (at, _) in text.match_indices(SEPARATOR) {
        let next = at + SEPARATOR.len_utf8();
        if scheme(&text[next..]).is_some() {
            urls.push(&text[begin..at]);
            begin = next;
        }
    }
    urls.push(&text[begin..]);
    urls
}

/// Returns the scheme of a URL, if it is one.
pub(super) fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+';
    (!scheme.is_empty() && scheme.bytes().all(is_plain)).then_some(scheme)
}

/// Returns URLs without their users, passwords and parameters.
pub(super) fn shown(urls: &str) -> String {
    let shown: Vec<String> = each_url(urls).into_iter().map(shown_of_one).collect();
    shown.join(",")
}

fn shown_of_one(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let place = rest.split('?').next().unwrap_or_default();
    let place = place.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{place}")
}

/// Tells whether one of some URLs holds a password.
pub(super) fn has_password(urls: &str) -> bool {
    each_url(urls).into_iter().any(one_has_password)
}

fn one_has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let user = place.rsplit_once('@').map_or("", |(user, _)| user);
    // For NATS a user without a password is a token.
    let is_token = matches!(scheme(url), Some("nats" | "tls" | "nats+tls")) && !user.is_empty();
    let is_secret = |it: &str| it.starts_with("password=") || it.starts_with("pass=");
    is_token || user.contains(':') || parameters.split('&').any(is_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_has_neither_user_nor_password() {
        for (url, expected) in [
            (
                "postgres://shop:s3cret@db:5433/shop",
                "postgres://db:5433/shop",
            ),
            (
                "postgres://shop@db/shop?password=s3cret",
                "postgres://db/shop",
            ),
            ("postgres://a:b@c@db/shop", "postgres://db/shop"),
            ("postgres:///shop?host=/run/pg", "postgres:///shop"),
            (
                "redis://:s3,cret@a/0?x=y,redis://b,rediss://:s3cret@c:1/2",
                "redis://a/0,redis://b,rediss://c:1/2",
            ),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn comma_begins_another_url_only_before_a_scheme() {
        for (text, expected) in [
            ("redis://a", &["redis://a"][..]),
            ("redis://a,redis://b", &["redis://a", "redis://b"]),
            ("postgres://a,b:1/shop", &["postgres://a,b:1/shop"]),
            (
                "redis://:x,y@a,redis+unix:///b",
                &["redis://:x,y@a", "redis+unix:///b"],
            ),
            ("redis://a,", &["redis://a,"]),
        ] {
            assert_eq!(each_url(text), expected);
        }
    }

    #[test]
    fn password_is_found_in_whichever_of_several() {
        assert!(has_password("redis://a,redis://:s3cret@b,redis://c"));
        assert!(has_password(
            "redis+unix:///a?db=1,redis+unix:///b?pass=s3cret"
        ));
        assert!(!has_password("redis://user@a,redis://b,redis://c"));
        assert!(has_password("nats://t0ken@a") && !has_password("nats://a:4222"));
    }
}
