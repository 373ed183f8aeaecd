//! Reads what `sacctmgr dump CLUSTER` writes.
//!
//! A line is `Kind - 'name':Key=value:Key='value'…`; an account or a user belongs to the parent of the last line
//! `Parent - 'name'`. Keys as in `src/sacctmgr/file_functions.c` of Slurm. A typed TRES has a colon of its own, as in
//! `GrpTRES=gres/gpu:h200=4`, which is not the end of the value.

/// One association: an account in the tree, or a user in an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Line in the dump, from 1.
    pub line: usize,
    /// The account above it, or the account of a user.
    pub parent: String,
    /// The account; for a user the parent.
    pub account: String,
    /// The user, for a user's association.
    pub user: Option<String>,
    /// What is said about it: keys and values as Slurm writes them.
    pub terms: Vec<(String, String)>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DumpFault {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// The cluster's name and every association, in the order of the dump.
///
/// # Errors
/// The first line that is none of a dump.
pub fn read(text: &str) -> Result<(String, Vec<Association>), DumpFault> {
    let (mut cluster, mut parent) = (String::new(), "root".to_owned());
    let mut associations = Vec::new();
    for (line, content) in (1..).zip(text.lines().map(str::trim)) {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let fault = |what: &str| DumpFault { line, what: what.to_owned() };
        let (kind, rest) = content
            .split_once(" - ")
            .ok_or_else(|| fault("not of a dump: \"Kind - 'name':Key=value\" is expected"))?;
        let mut pieces = pieces(rest).into_iter();
        let name = unquoted(pieces.next().unwrap_or_default()).to_owned();
        if name.is_empty() {
            return Err(fault("has no name"));
        }
        let terms =
            || terms_of(pieces).map_err(|piece| fault(&format!("\"{piece}\" is no Key=value")));
        match kind.trim().to_ascii_lowercase().as_str() {
            "cluster" => cluster = name,
            "parent" => parent = name,
            "account" => associations.push(Association {
                line,
                parent: parent.clone(),
                account: name,
                user: None,
                terms: terms()?,
            }),
            "user" => associations.push(Association {
                line,
                parent: parent.clone(),
                account: parent.clone(),
                user: Some(name),
                terms: terms()?,
            }),
            // Accounts that name one are told so; by itself it says nothing of the tree.
            "qos" => {}
            other => {
                return Err(fault(&format!(
                    "\"{other}\" is no Cluster, Parent, Account, User or QOS"
                )));
            }
        }
    }
    if cluster.is_empty() {
        return Err(DumpFault {
            line: 0,
            what: "names no Cluster: is it a dump of sacctmgr?".to_owned(),
        });
    }
    Ok((cluster, associations))
}

/// The parts between colons; those within quotes, and the one within a typed TRES, divide nothing.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut begin, mut quoted) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            ':' if !quoted && !is_typed_tres(&text[begin..at]) => {
                pieces.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

/// Whether what was read so far ends in the name of a TRES that has types, as `GrpTRES=cpu=8,gres/gpu` does.
fn is_typed_tres(piece: &str) -> bool {
    let last = piece.rsplit([',', '=']).next().unwrap_or_default();
    ["gres/", "license/", "ic/", "fs/"].iter().any(|kind| last.starts_with(kind))
}

fn terms_of<'a>(pieces: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, String> {
    let term = |piece: &str| {
        let (key, value) = piece.split_once('=').ok_or_else(|| piece.to_owned())?;
        Ok((key.trim().to_owned(), unquoted(value).to_owned()))
    };
    pieces.filter(|piece| !piece.trim().is_empty()).map(term).collect()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DUMP: &str = "\
# To edit this file start with a cluster line for the new cluster
Cluster - 'gpu1':Fairshare=1:QOS='normal'
Parent - 'root'
User - 'root':DefaultAccount='root':AdminLevel='Administrator':Fairshare=1
Account - 'acad':Description='a: b':Organization='kisti':Fairshare=10:GrpTRES=cpu=64,gres/gpu:h200=4,gres/gpu=6:GrpJobs=3
Parent - 'acad'
User - 'kim':Partition='gpu':Fairshare=parent
";

    #[test]
    fn a_dump_is_read_line_by_line_with_colons_in_quotes_and_types() {
        let (cluster, found) = read(DUMP).unwrap();
        assert_eq!(cluster, "gpu1");
        let places: Vec<_> = found
            .iter()
            .map(|one| (one.parent.as_str(), one.account.as_str(), one.user.as_deref()))
            .collect();
        assert_eq!(
            places,
            [("root", "root", Some("root")), ("root", "acad", None), ("acad", "acad", Some("kim"))]
        );
        let term = |key: &str| {
            let of = found[1].terms.iter().find(|(name, _)| name == key);
            of.unwrap().1.as_str()
        };
        assert_eq!(term("Description"), "a: b");
        assert_eq!(term("GrpTRES"), "cpu=64,gres/gpu:h200=4,gres/gpu=6");
        assert_eq!(term("GrpJobs"), "3");
    }

    #[test]
    fn what_is_no_dump_is_refused_with_its_line() {
        let fault = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            fault("Cluster - 'a'\nhello"),
            "line 2: not of a dump: \"Kind - 'name':Key=value\" is expected"
        );
        assert_eq!(fault("Cluster - 'a'\nAccount - 'b':x"), "line 2: \"x\" is no Key=value");
        assert_eq!(
            fault("Queue - 'a'"),
            "line 1: \"queue\" is no Cluster, Parent, Account, User or QOS"
        );
        assert_eq!(fault(""), "line 0: names no Cluster: is it a dump of sacctmgr?");
        assert_eq!(fault("Cluster - ''"), "line 1: has no name");
    }
}
