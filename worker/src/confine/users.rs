//! Users of the system by name, as this machine knows them.

use std::ffi::CString;

use nix::unistd::{User, getgrouplist};

use super::spec::UnixUser;

/// The user of this name with all groups. Root, and who has root's group, is refused.
pub fn find(name: &str) -> Result<UnixUser, String> {
    let found = User::from_name(name).map_err(|error| format!("user {name}: {error}"))?;
    let user = found.ok_or_else(|| format!("this machine knows no user {name}"))?;
    let c_name = CString::new(name).map_err(|_| format!("{name:?} is no name"))?;
    let groups =
        getgrouplist(&c_name, user.gid).map_err(|error| format!("groups of {name}: {error}"))?;
    let groups: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).collect();
    if user.uid.is_root() || user.gid.as_raw() == 0 || groups.contains(&0) {
        return Err(format!("user {name} is root or of root's group: no job runs as that"));
    }
    Ok(UnixUser {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups,
        home: user.dir.to_string_lossy().into_owned(),
        shell: user.shell.to_string_lossy().into_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_is_refused_and_so_is_who_is_not_known() {
        assert!(find("root").unwrap_err().contains("root"));
        assert!(find("no-such-user-here").unwrap_err().contains("no user"));
    }

    #[test]
    fn a_user_comes_with_the_first_group_among_all() {
        let user = find("nobody").unwrap();
        assert!(user.uid != 0 && user.groups.contains(&user.gid));
    }
}
