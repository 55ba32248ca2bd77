//! What a checkout has to keep of an order, so that it can go on after a crash: the id of its
//! reserve, before it reserves.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use stock_client::Client;

/// One order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The shop's own name for it, which the reservation carries, too.
    pub(crate) reference: String,
    /// The id of its reserve.
    pub(crate) reserve_id: String,
    /// Whether the money has come.
    pub(crate) is_paid: bool,
}

/// Where an order is kept: one file, written whole.
pub(crate) struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The order as it was left, or a new one: it is on the disk when this returns.
    pub(crate) fn open(dir: &Path, reference: &str, client: &Client) -> Result<(Self, Order)> {
        if reference.contains('/') || reference.starts_with('.') {
            bail!("{reference}: the order is no name of a file, by which it is kept");
        }
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        let path = dir.join(format!("{reference}.json"));
        let journal = Self { path };
        match fs::read(&journal.path) {
            Ok(text) => {
                let order = serde_json::from_slice(&text);
                let order = order.with_context(|| format!("{}", journal.path.display()))?;
                return Ok((journal, order));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // With other ids the order would be held a second time.
            Err(error) => return Err(error).context(format!("{}", journal.path.display())),
        }
        let order = Order {
            reference: reference.to_owned(),
            reserve_id: client.new_request_id(),
            is_paid: false,
        };
        journal.keep(&order)?;
        Ok((journal, order))
    }

    /// Keeps the order as it is now.
    pub(crate) fn keep(&self, order: &Order) -> Result<()> {
        let written = self.path.with_extension("new");
        let mut file = File::create(&written)?;
        file.write_all(&serde_json::to_vec_pretty(order)?)?;
        file.sync_all()?;
        fs::rename(&written, &self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        Ok(File::open(dir)?.sync_all()?)
    }
}
