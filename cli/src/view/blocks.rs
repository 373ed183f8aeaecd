//! Blocks: those that a node belongs to, and what a job asks of them.

use std::collections::BTreeMap;

use gotgan_core::topology::Level;
use gotgan_proto::v1;
use serde::Serialize;

/// What a job asks of blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlockTermsView {
    /// Level of which all nodes are in one block.
    pub one: Option<String>,
    /// Level of which nodes are in as few blocks as possible.
    pub prefer: Option<String>,
    /// Nodes of each segment.
    pub segment_nodes: Option<u32>,
    /// Level whose blocks segments are inside of.
    pub segment_level: Option<String>,
}

impl BlockTermsView {
    /// As the API has it.
    #[must_use]
    pub fn of(constraints: &v1::Constraints) -> Self {
        let given = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        Self {
            one: given(&constraints.one),
            prefer: given(&constraints.prefer),
            segment_nodes: (constraints.segment_nodes > 0).then_some(constraints.segment_nodes),
            segment_level: given(&constraints.segment_level),
        }
    }

    /// As in "one rack, segments of 4 nodes in one NVLink domain each"; empty if nothing is asked.
    #[must_use]
    pub fn text(&self) -> String {
        let noun = |word: &String| noun(word).to_owned();
        let level = self.segment_level.as_ref().map(noun).unwrap_or_default();
        let segments = self
            .segment_nodes
            .map(|nodes| format!("segments of {nodes} nodes in one {level} each"));
        let one = self.one.as_ref().map(|level| format!("one {}", noun(level)));
        let prefer = self.prefer.as_ref().map(|level| format!("preferably one {}", noun(level)));
        let parts: Vec<String> = [one, segments, prefer].into_iter().flatten().collect();
        parts.join(", ")
    }
}

fn noun(word: &str) -> &str {
    match Level::of_word(word) {
        Some(level) => level.noun(),
        None => word,
    }
}

/// The blocks that labels name, the widest first.
#[must_use]
pub fn of_labels(labels: &BTreeMap<String, String>) -> Vec<(&'static str, &str)> {
    let named = |level: Level| {
        let name = labels.get(level.word()).filter(|name| !name.is_empty());
        name.map(|name| (level.word(), name.as_str()))
    };
    Level::ALL.into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_blocks_is_said_in_words() {
        let constraints = v1::Constraints {
            one: "cluster".to_owned(),
            prefer: "leaf".to_owned(),
            segment_nodes: 16,
            segment_level: "nvlink".to_owned(),
            ..Default::default()
        };
        insta::assert_snapshot!(BlockTermsView::of(&constraints).text(), @"one cluster, segments of 16 nodes in one NVLink domain each, preferably one leaf switch");
        assert_eq!(BlockTermsView::of(&v1::Constraints::default()).text(), "");
    }
}
