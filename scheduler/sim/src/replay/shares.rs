//! Shares of tenants: equal ones, or those of a table with the columns `tenant` and `shares`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::table::{Table, TableError};

/// Largest share, as for weights in quota files.
const SHARE_MAX: u32 = 1_000_000;

/// Why there are no shares.
#[derive(Debug, thiserror::Error)]
pub enum SharesError {
    /// The file cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A tenant has none.
    #[error("{} has no shares for {tenant}", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which tenant.
        tenant: String,
    },
}

/// A share for each of these tenants, in their order; those that the table has beside them do not matter.
///
/// # Errors
/// [`SharesError`]
pub fn read(path: Option<&Path>, tenants: &[String]) -> Result<Vec<u32>, SharesError> {
    let Some(path) = path else { return Ok(vec![1; tenants.len()]) };
    let mut table = Table::open(path)?;
    table.require(&["tenant", "shares"])?;
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(row) = table.row()? {
        let share = row.value("shares")?;
        if !(1..=SHARE_MAX).contains(&share) {
            return Err(row.fault("shares", format!("must be from 1 to {SHARE_MAX}")).into());
        }
        if shares.insert(row.text("tenant")?.to_owned(), share).is_some() {
            return Err(row.fault("tenant", "has shares already").into());
        }
    }
    let missing =
        |tenant: &String| SharesError::Missing { path: path.to_owned(), tenant: tenant.clone() };
    tenants.iter().map(|name| shares.get(name).copied().ok_or_else(|| missing(name))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read_text(text: &str, tenants: &[&str]) -> Result<Vec<u32>, SharesError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let tenants: Vec<String> = tenants.iter().map(|&name| name.to_owned()).collect();
        read(Some(file.path()), &tenants)
    }

    #[test]
    fn every_tenant_has_a_share() {
        let text = "tenant,shares\nb,2\na,5\nc,1\n";
        assert_eq!(read_text(text, &["a", "b"]).unwrap(), [5, 2]);
        assert_eq!(read(None, &["a".to_owned(), "b".to_owned()]).unwrap(), [1, 1]);
        assert!(matches!(read_text(text, &["d"]), Err(SharesError::Missing { .. })));
        assert!(matches!(read_text("tenant,shares\na,0\n", &["a"]), Err(SharesError::Table(_))));
        assert!(matches!(
            read_text("tenant,shares\na,1\na,1\n", &["a"]),
            Err(SharesError::Table(_))
        ));
    }
}
