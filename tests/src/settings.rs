//! How long a run is: short unless the environment says otherwise.

/// A number from the environment, such as `STOCKD_POWER_CUTS=200`; `usual` where it is not set.
pub fn number(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => usual,
    }
}

/// What a run draws its chances from: `STOCKD_SEED`, or `usual`.
pub fn seed(usual: u64) -> u64 {
    number("STOCKD_SEED", usual)
}
