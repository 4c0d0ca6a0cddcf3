//! URLs that say something, URLs that are refused, and passwords that never show.

use super::*;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}

fn place(site: Site) -> Place {
    Place { tls: false, credentials: None, db: 0, site }
}

fn known(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

#[test]
fn a_url_says_where_and_how() {
    let one = |host, port| place(Site::One(tcp(host, port)));
    let sentinels = vec![tcp("a", 1), tcp("b", 26379)];
    let group = place(Site::Sentinel { sentinels, master: "m x".to_owned() });
    let cluster = place(Site::Cluster { seeds: vec![tcp("a", 7000), tcp("b", 6379)] });
    let table = [
        ("redis://localhost", one("localhost", 6379)),
        ("redis://localhost/", one("localhost", 6379)),
        ("redis://h:7/3", Place { db: 3, ..one("h", 7) }),
        ("redis://[::1]", one("::1", 6379)),
        ("redis://[::1]:7", one("::1", 7)),
        ("rediss://h:7", Place { tls: true, ..one("h", 7) }),
        ("redis://:p%40%2Fq@h", Place { credentials: known("", "p@/q"), ..one("h", 6379) }),
        ("redis://u:p:q@h", Place { credentials: known("u", "p:q"), ..one("h", 6379) }),
        ("redis://u:p@q@h", Place { credentials: known("u", "p@q"), ..one("h", 6379) }),
        ("redis+unix:///run/a@b%20c", place(Site::One(Address::Unix("/run/a@b c".into())))),
        ("redis+sentinel://a:1,b/m%20x", group.clone()),
        (
            "rediss+sentinel://u:p@a:1,b/m%20x/2",
            Place { tls: true, db: 2, credentials: known("u", "p"), ..group },
        ),
        ("redis+cluster://a:7000,b", cluster.clone()),
        ("rediss+cluster://:p@a:7000,b/", Place { tls: true, credentials: known("", "p"), ..cluster }),
    ];
    for (url, expect) in table {
        assert_eq!(parse(url), Ok(expect), "{url}");
    }
}

#[test]
fn what_is_wrong_with_a_url_is_told_without_its_password() {
    let table = [
        ("localhost:6379", "no scheme"),
        ("http://h", "none of redis"),
        ("redis://", "host 1 has no name"),
        ("redis://a,b", "several hosts"),
        ("redis+cluster://a,,b", "host 2 has no name"),
        ("redis+cluster://a/1", "only the database 0"),
        ("redis+sentinel://a:1", "names no master"),
        ("redis://h:0", "port of host 1"),
        ("redis://h:", "port of host 1"),
        ("redis://[::1]x", "port of host 1"),
        ("redis://::1", "several colons"),
        ("redis://[::1", "has no ]"),
        ("redis://h/one", "not a database's number"),
        ("redis://h?db=1", "query or a fragment"),
        ("rediss://h/#insecure", "query or a fragment"),
        ("redis://hunter2@h", "no password"),
        ("redis://u:@h", "password is empty"),
        ("redis://u:hunter2%4@h", "two hexadecimal digits"),
        ("redis://u:hunter2%ff@h", "not UTF-8"),
        ("redis://u:hunter2%+1@h", "two hexadecimal digits"),
        ("redis://:hunter2", "host 1 has no name"),
        ("redis://u:hunter2@h:99999", "port of host 1"),
        ("redis+unix://run/redis.sock", "no absolute path"),
        ("rediss+unix:///run/redis.sock", "TLS is not spoken"),
    ];
    for (url, expect) in table {
        let error = parse(url).expect_err(url).to_string();
        assert!(error.contains(expect), "{url}: {error}");
        assert!(
            !error.contains("hunter2") && !shown(url).contains("hunter2"),
            "{url}: {error} {}",
            shown(url)
        );
    }
}

#[test]
fn a_url_is_shown_without_user_and_password() {
    let table = [
        ("redis://h:7/3", "redis://h:7/3"),
        ("redis://user:hunter2@h:7/3", "redis://…@h:7/3"),
        ("rediss+sentinel://user:hun@ter2@a,b/m", "rediss+sentinel://…@a,b/m"),
        ("redis+unix:///run/a@b", "redis+unix:///run/a@b"),
        ("redis://user:hunter2@h:x", "redis://…"),
        ("hunter2://h", "redis://…"),
    ];
    for (url, expect) in table {
        assert_eq!(shown(url), expect, "{url}");
    }
    let place = parse("redis://user:hunter2@h").unwrap();
    assert!(!format!("{place:?}").contains("hunter2"));
}
