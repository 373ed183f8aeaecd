//! Which line is first: a tournament over all of them, in which a match is played again only where its outcome may have
//! changed.
//!
//! Lines are compared level by level from the top of the quota tree, so they sit in the order of the tree: those below one
//! node side by side. What one project takes makes it and every node above it worse, and all lines below such a node by
//! the same. Among themselves these stay in order; only matches between them and the others are played again, which are
//! those at the two ends of where they sit. So a start costs the depth of the tree times the logarithm of the number of
//! lines, however many lie below the same node.

use super::Line;
use super::ready::Place;
use crate::fairshare::order::Burden;
use crate::planner::fair::Fair;
use crate::planner::score::ClassIndex;
use crate::quota::entitle::NodeIndex;

/// Nobody, or nothing.
const NONE: u32 = u32::MAX;

/// All lines, of which one is first.
#[derive(Debug)]
pub(super) struct Tournament {
    /// By line, the place of the next job, if it has one.
    places: Vec<Option<Place>>,
    /// By line, where it sits.
    seats: Vec<u32>,
    /// By line, its part of `paths`.
    path_of: Vec<(u32, u32)>,
    /// Rungs from the top down, one path after the other.
    paths: Vec<u32>,
    rungs: Vec<Rung>,
    /// By table and node of the tree, the number of its rung.
    rung_of: Vec<u32>,
    nodes: usize,
    /// The line that won each match: of the matches `2 n` and `2 n + 1` in match `n`, and the first of all in match 1. Who
    /// sits where comes behind all matches.
    winners: Vec<u32>,
}

/// A node of the tree that waits for a class, or for any.
#[derive(Debug)]
struct Rung {
    burden: Burden,
    /// Between which seats the lines below it sit.
    first: u32,
    last: u32,
}

/// Of all tables, that of any class comes first.
fn number_of(table: Option<ClassIndex>) -> usize {
    table.map_or(0, |class| usize::from(class.0) + 1)
}

impl Tournament {
    /// Nobody has a place yet.
    pub fn of(lines: &[Line<'_>], fair: Option<&Fair>) -> Self {
        let (nodes, tables) =
            fair.map_or((0, 0), |fair| (fair.nodes(), fair.class_indexes().count() + 1));
        let mut tournament = Tournament {
            places: vec![None; lines.len()],
            seats: vec![0; lines.len()],
            path_of: vec![(0, 0); lines.len()],
            paths: Vec::new(),
            rungs: Vec::new(),
            rung_of: vec![NONE; tables * nodes],
            nodes,
            winners: vec![NONE; 2 * lines.len().next_power_of_two()],
        };
        for (seat, line) in (0..NONE).zip(in_order(lines, fair)) {
            tournament.seats[line] = seat;
            if let Some((fair, (table, node))) = fair.zip(lines[line].compared_by()) {
                tournament.path_of[line] = tournament.enter_path(fair, table, node, seat);
            }
        }
        tournament
    }

    /// The path to a node for a line that sits there; lines of the same node sit side by side and have the same.
    fn enter_path(
        &mut self,
        fair: &Fair,
        table: Option<ClassIndex>,
        node: NodeIndex,
        seat: u32,
    ) -> (u32, u32) {
        let begin = self.paths.len();
        let above = fair.arena().self_and_ancestors(node);
        for node in above.filter(|node| fair.all_burdens().decides(*node)) {
            let place = number_of(table) * self.nodes + node.get();
            if self.rung_of[place] == NONE {
                self.rung_of[place] = count(self.rungs.len());
                let burden = fair.all_burdens().burden(node, table);
                self.rungs.push(Rung { burden, first: seat, last: seat });
            }
            self.rungs[self.rung_of[place] as usize].last = seat;
            self.paths.push(self.rung_of[place]);
        }
        self.paths[begin..].reverse();
        (count(begin), count(self.paths.len()))
    }

    /// Gives every line the place of its next job.
    pub fn seat_all(&mut self, places: impl Iterator<Item = Option<Place>>) {
        self.places.clear();
        self.places.extend(places);
        let half = self.winners.len() / 2;
        self.winners.fill(NONE);
        for (line, seat) in self.seats.iter().enumerate() {
            if self.places[line].is_some() {
                self.winners[half + *seat as usize] = count(line);
            }
        }
        (1..half).rev().for_each(|game| self.play(game));
    }

    /// Gives a line the place of its next job.
    pub fn seat(&mut self, line: usize, place: Option<Place>) {
        self.places[line] = place;
        let seat = self.winners.len() / 2 + self.seats[line] as usize;
        self.winners[seat] = if place.is_some() { count(line) } else { NONE };
        self.play_above(seat);
    }

    /// The line that is first; `None` if none has a place.
    pub fn first(&self) -> Option<usize> {
        self.winners.get(1).filter(|line| **line != NONE).map(|line| *line as usize)
    }

    /// Something of a class was taken for a node.
    pub fn burdened(&mut self, fair: &Fair, node: NodeIndex, class: ClassIndex) {
        for table in [None, Some(class)] {
            let mut ends = Vec::new();
            for node in fair.self_and_ancestors(node) {
                let number = self.rung_of[number_of(table) * self.nodes + node.get()];
                let Some(rung) = self.rungs.get_mut(number as usize) else { continue };
                rung.burden = fair.all_burdens().burden(node, table);
                ends.extend([rung.first, rung.last]);
            }
            ends.sort_unstable();
            ends.dedup();
            self.play_above_all(ends);
        }
    }

    /// Plays every match above these seats again.
    fn play_above_all(&mut self, mut games: Vec<u32>) {
        let half = self.winners.len() / 2;
        let mut level = half;
        while level > 1 {
            games.iter_mut().for_each(|game| *game /= 2);
            games.dedup();
            level /= 2;
            games.iter().for_each(|game| self.play(level + *game as usize));
        }
    }

    fn play_above(&mut self, seat: usize) {
        let mut game = seat / 2;
        while game > 0 {
            self.play(game);
            game /= 2;
        }
    }

    fn play(&mut self, game: usize) {
        self.winners[game] = self.winner(self.winners[2 * game], self.winners[2 * game + 1]);
    }

    /// Which of two lines comes before the other.
    fn winner(&self, one: u32, other: u32) -> u32 {
        if one == NONE || other == NONE {
            return one.min(other);
        }
        if self.comes_before(one as usize, other as usize) { one } else { other }
    }

    /// Within a guarantee, first those that others have stopped for; then by burdens; then by the places of their next
    /// jobs; and of equals the one that was entered first.
    fn comes_before(&self, one: usize, other: usize) -> bool {
        let promised = |line: usize| self.places[line].map(|place| place.promised);
        let by_promise = promised(one).cmp(&promised(other));
        let by_burdens = || self.burdens(one).cmp(self.burdens(other));
        let by_place = || self.places[one].cmp(&self.places[other]).then(one.cmp(&other));
        by_promise.then_with(by_burdens).then_with(by_place).is_lt()
    }

    fn burdens(&self, line: usize) -> impl Iterator<Item = Burden> + '_ {
        let (begin, end) = self.path_of[line];
        let rungs = &self.paths[begin as usize..end as usize];
        rungs.iter().map(|rung| self.rungs[*rung as usize].burden)
    }
}

/// Lines in the order in which they sit: by what they are compared, and of those the ones below one node side by side.
fn in_order(lines: &[Line<'_>], fair: Option<&Fair>) -> impl Iterator<Item = usize> + use<> {
    let seat = |(at, line): (usize, &Line<'_>)| match fair.zip(line.compared_by()) {
        None => (0, 0, at),
        Some((fair, (table, node))) => {
            (number_of(table) + 1, fair.arena().place_in_order(node), at)
        }
    };
    let mut order: Vec<(usize, u32, usize)> = lines.iter().enumerate().map(seat).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, line)| line)
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(NONE)
}
