//! Images: files that a job brings along instead of the node's own, and which nodes can run jobs with one.
//!
//! What lies at the path is looked at by the worker, as the job's user; here only the text is judged.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Inventory;

/// A path of an image, bytes: what Linux takes.
const BYTES_MAX: usize = 4096;

/// Where an image lies: an absolute path on the nodes, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImagePath(String);

/// Why a text is no path of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    /// Registries and relative paths.
    #[error(
        "is not an absolute path; give a directory on the nodes, as /images/torch (registries are not pulled from)"
    )]
    NotAbsolute,
    /// It would lead elsewhere than it says.
    #[error("has \"..\" in it; give the path without it")]
    HasParent,
    /// The node's own files.
    #[error("is / itself; leave it out to run with the node's own files")]
    IsRoot,
    /// Nothing can be opened by it.
    #[error("has control characters; rename the image")]
    HasControl,
    /// Longer than Linux takes.
    #[error("is longer than {BYTES_MAX} bytes; move the image to a shorter path")]
    TooLong,
}

impl ImagePath {
    /// Checks the text.
    ///
    /// # Errors
    /// [`BadImage`], with the fix.
    pub fn new(text: &str) -> Result<Self, BadImage> {
        let mut parts = text.split('/');
        if text.len() > BYTES_MAX {
            Err(BadImage::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(BadImage::HasControl)
        } else if !text.starts_with('/') {
            Err(BadImage::NotAbsolute)
        } else if parts.clone().any(|part| part == "..") {
            Err(BadImage::HasParent)
        } else if parts.all(|part| part.is_empty() || part == ".") {
            Err(BadImage::IsRoot)
        } else {
            Ok(ImagePath(text.to_owned()))
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether jobs with an image can run on a node, as its worker found out when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    /// The site does not ask for it.
    Off,
    /// It is asked for and cannot be had there: why, in words.
    Unable(String),
    /// They can: by what, as in "runc 1.1.5".
    Able(String),
}

impl Inventory {
    /// Whether a job with an image may be placed there. A worker that tells nothing cannot.
    #[must_use]
    pub fn runs_images(&self) -> bool {
        matches!(self.images, Some(Images::Able(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_an_absolute_path_that_leads_where_it_says() {
        let bad = |text: &str| ImagePath::new(text).unwrap_err();
        assert_eq!(ImagePath::new("/images/torch-2.8").unwrap().as_str(), "/images/torch-2.8");
        assert_eq!(ImagePath::new("/images/a..b/").unwrap().as_str(), "/images/a..b/");
        assert_eq!(bad(""), BadImage::NotAbsolute);
        assert_eq!(bad("docker://ubuntu:24.04"), BadImage::NotAbsolute);
        assert_eq!(bad("/images/../etc"), BadImage::HasParent);
        assert_eq!(bad("//./"), BadImage::IsRoot);
        assert_eq!(bad("/a\nb"), BadImage::HasControl);
        assert_eq!(bad(&format!("/{}", "x".repeat(BYTES_MAX))), BadImage::TooLong);
    }
}
