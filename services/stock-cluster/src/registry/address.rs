//! When two addresses are the same place, as far as their text tells. Every replica of group 0 must
//! come to the same answer, so no name is looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads: host and port. A URL's scheme and path say nothing of it; names are
/// compared without case, and all that names this machine to itself is one.
pub(super) fn place(address: &str) -> (String, String) {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let host = match ip(&host) {
        Some(ip) if OWN.contains(&ip) => "localhost".to_owned(),
        Some(ip) => ip.to_string(),
        None => host,
    };
    (host, port.to_owned())
}

/// Whether nobody can be reached there: it means "any address" where one listens, and nothing
/// elsewhere.
pub(super) fn is_nowhere(host: &str) -> bool {
    host.is_empty() || ip(host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast())
}

/// What `localhost` stands for, as a rule.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

fn ip(host: &str) -> Option<IpAddr> {
    host.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_many_spellings() {
        let check = |one: &str, other: &str, is_same: bool| {
            assert_eq!(place(one) == place(other), is_same, "{one} and {other}");
        };
        check("http://127.0.0.1:7401", "http://localhost:7401/", true);
        check("127.0.0.1:7421", "[::1]:7421", true);
        check("127.0.0.1:7421", "127.0.0.2:7421", false);
        check("127.0.0.1:7421", "127.0.0.1:7422", false);
        check("http://Node-2.shop.:7401", "https://node-2.shop:7401", true);
        check("node-2:7401", "node-3:7401", false);
        check("[fd00::1]:7401", "[fd00:0::1]:7401", true);
        check("[::ffff:10.0.0.1]:7401", "10.0.0.1:7401", true);
        check("10.0.0.1", "10.0.0.1:7401", false);
    }

    #[test]
    fn an_address_to_listen_on_is_no_place_to_go() {
        for address in [
            "0.0.0.0:1",
            "http://0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
            ":1",
            "224.0.0.1:1",
        ] {
            assert!(is_nowhere(&place(address).0), "{address}");
        }
        for address in ["10.0.0.1:1", "http://node:1", "[fe80::1]:1", "localhost:1"] {
            assert!(!is_nowhere(&place(address).0), "{address}");
        }
    }
}
