//! Where another node may be. Machines move, and configuration files, the registry and the node
//! itself learn of it at different times.

/// The addresses at which a node may listen for peers: `host:port` each, empty where nobody has
/// said one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// As it said itself, when it introduced itself last.
    pub heard: String,
    /// As the registry has it.
    pub listed: String,
    /// As this node's configuration has it.
    pub configured: String,
}

impl Whereabouts {
    /// Each once, the likeliest first.
    pub fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        for address in [&self.heard, &self.listed, &self.configured] {
            if !address.is_empty() && !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_said_itself_comes_first_and_nothing_twice() {
        let at = |heard: &str, listed: &str, configured: &str| Whereabouts {
            heard: heard.to_owned(),
            listed: listed.to_owned(),
            configured: configured.to_owned(),
        };
        assert_eq!(at("c:1", "a:1", "a:1").all(), ["c:1", "a:1"]);
        assert_eq!(at("", "a:1", "b:1").all(), ["a:1", "b:1"]);
        assert!(Whereabouts::default().all().is_empty());
    }
}
