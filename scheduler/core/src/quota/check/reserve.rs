//! Loans and reservations: who consents, what is missing, and which cluster could hold it.
//!
//! What is lent is there, at every moment of the loan. What is reserved below a node is no more than it is
//! guaranteed, with what is lent to it, and no more than the cluster has, and no two reservations of one cluster
//! overlap.

use std::collections::BTreeMap;

use super::Checker;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{ClusterName, GpuClass, LoanName, ProjectPath, ReservationName};
use crate::quota::loan::LoanTerms;
use crate::quota::moment;
use crate::quota::reserve::{Fabric, ReservationTerms};

/// What is missing for a reservation at a moment.
struct Lack<'a> {
    holder: &'a ProjectPath,
    class: &'a GpuClass,
    /// All that is reserved at and below the holder.
    reserved: GpuMilli,
    own: GpuMilli,
    lent: GpuMilli,
    /// Lent by those who have not consented.
    asked: GpuMilli,
}

impl<'a> Checker<'a> {
    pub(super) fn check_consents(&mut self) {
        for (name, loan) in self.book.loans.iter().filter(|(_, loan)| loan.consent.is_none()) {
            let LoanTerms { lender, borrower, class, gpus, during, .. } = loan;
            let message = format!(
                "{lender} has not consented to lend {gpus} {class} to {borrower} from {} until {}: name its \
                 document, as in consent = \"GPU-2027-021\"",
                moment::show(during.from),
                moment::show(during.until)
            );
            self.tell(format!("loan.{name}.consent"), message);
        }
    }

    /// That a cluster is named which can hold what is reserved, alone.
    pub(super) fn check_fabrics(&mut self) {
        for (name, terms) in &self.book.reservations {
            match &terms.fabric {
                Fabric::Any => self.tell_choice(name, terms),
                Fabric::Cluster(cluster) => self.check_cluster(name, terms, cluster),
            }
        }
    }

    fn tell_choice(&mut self, name: &ReservationName, terms: &ReservationTerms) {
        let message = format!(
            "{} for {} {} in one fabric: name the cluster",
            self.fitting_words(name, terms),
            terms.gpus,
            terms.class
        );
        self.tell(format!("reservation.{name}.cluster"), message);
    }

    fn check_cluster(
        &mut self,
        name: &ReservationName,
        terms: &ReservationTerms,
        cluster: &ClusterName,
    ) {
        let field = format!("reservation.{name}.cluster");
        if let Some(other) = self.in_the_way(name, terms, cluster) {
            let during = self.book.reservations[other].during;
            let message = format!(
                "{cluster} is reserved by {other} from {} until {}: two reservations of one cluster may not overlap",
                moment::show(during.from),
                moment::show(during.until)
            );
            return self.tell(field, message);
        }
        let there = self.book.in_quota(cluster, terms.during);
        if there < terms.gpus && !self.book.lots.is_empty() {
            let message = format!(
                "{cluster} has {there} {} in quota then, and {} are reserved: {}",
                terms.class,
                terms.gpus,
                self.fitting_words(name, terms)
            );
            self.tell(field, message);
        }
    }

    /// Another reservation of the cluster at the same time, of those with an earlier name.
    fn in_the_way(
        &self,
        name: &ReservationName,
        terms: &ReservationTerms,
        cluster: &ClusterName,
    ) -> Option<&'a ReservationName> {
        let mut others = self.book.reservations.iter();
        let other = others.find(|(other, taken)| {
            *other < name
                && taken.fabric.cluster() == Some(cluster)
                && taken.during.from < terms.during.until
                && terms.during.from < taken.during.until
        });
        other.map(|(other, _)| other)
    }

    /// Which clusters could hold the reservation.
    fn fitting_words(&self, name: &ReservationName, terms: &ReservationTerms) -> String {
        let of_class = self.book.clusters.iter().filter(|(_, own)| own.class == terms.class);
        let sizes: Vec<(GpuMilli, &ClusterName)> = of_class
            .map(|(cluster, _)| (self.book.in_quota(cluster, terms.during), cluster))
            .collect();
        let fits = |(gpus, cluster): &&(GpuMilli, &ClusterName)| {
            *gpus >= terms.gpus && !self.is_taken(name, terms, cluster)
        };
        let word =
            |(gpus, cluster): &(GpuMilli, &ClusterName)| format!("{cluster} ({gpus} in quota)");
        let fitting: Vec<String> = sizes.iter().filter(fits).map(word).collect();
        match (fitting.as_slice(), sizes.iter().max()) {
            ([], None) => format!("no cluster has {}", terms.class),
            ([], Some(largest)) => format!("no cluster fits, the largest is {}", word(largest)),
            ([only], _) => format!("only {only} fits"),
            (several, _) => format!("{} fit", several.join(" and ")),
        }
    }

    fn is_taken(
        &self,
        name: &ReservationName,
        terms: &ReservationTerms,
        cluster: &ClusterName,
    ) -> bool {
        self.book.reservations.iter().any(|(other, taken)| {
            other != name
                && taken.fabric.cluster() == Some(cluster)
                && taken.during.from < terms.during.until
                && terms.during.from < taken.during.until
        })
    }

    /// That lenders have what they lend, and that both sides are there.
    pub(super) fn check_loans(&mut self, at: UnixMicros) {
        let mut lent: BTreeMap<(&ProjectPath, &GpuClass), (GpuMilli, &LoanName)> = BTreeMap::new();
        let book = self.book;
        for (name, loan) in book.loans.iter().filter(|(_, loan)| loan.during.contains(at)) {
            let sum = lent.entry((&loan.lender, &loan.class)).or_insert((GpuMilli::ZERO, name));
            *sum = (sum.0 + loan.gpus, name);
            if !book.is_valid(&loan.borrower, at) {
                let message = format!("{} is not there at {}", loan.borrower, moment::show(at));
                self.tell(format!("loan.{name}.borrower"), message);
            }
        }
        for ((lender, class), (sum, name)) in lent {
            let own = self.own(lender, class, at);
            if sum > own {
                let message = format!(
                    "from {} {lender} lends {sum} {class} and is guaranteed {own} itself: lend {} less",
                    moment::show(at),
                    sum - own
                );
                self.tell(format!("loan.{name}.gpus"), message);
            }
        }
    }

    /// That whoever has a reservation is sure of what it reserves.
    pub(super) fn check_reservations(&mut self, at: UnixMicros) {
        let book = self.book;
        for (name, terms) in book.reservations.iter().filter(|(_, terms)| terms.during.contains(at))
        {
            let lack = self.lack(terms, at);
            if lack.reserved > lack.own + lack.lent {
                let message = self.lack_words(name, terms, &lack, at);
                self.tell(format!("reservation.{name}.gpus"), message);
            }
        }
    }

    fn lack(&self, terms: &'a ReservationTerms, at: UnixMicros) -> Lack<'a> {
        let ReservationTerms { holder, class, .. } = terms;
        let now = self.book.reservations.values().filter(|other| {
            other.during.contains(at)
                && other.class == *class
                && other.holder.is_within(holder.as_str())
        });
        let own = self.own(holder, class, at);
        let with =
            |shifts: &crate::quota::loan::Shifts<'_>| shifts.apply(holder.as_str(), class, own);
        let (lent, all) = (with(&self.shifts), with(&self.book.shifts(at, |_| true)));
        Lack {
            holder,
            class,
            reserved: now.map(|other| other.gpus).sum(),
            own: own.min(lent),
            lent: lent.saturating_sub(own),
            asked: all.saturating_sub(lent),
        }
    }

    fn lack_words(
        &self,
        name: &ReservationName,
        terms: &ReservationTerms,
        lack: &Lack<'_>,
        at: UnixMicros,
    ) -> String {
        let Lack { holder, class, reserved, own, lent, asked } = lack;
        let silent = self.without_consent(holder, class, at);
        let silent = silent.iter().map(|(lender, gpus)| format!("{lender} {gpus}"));
        let silent = silent.collect::<Vec<_>>().join(", ");
        let consents =
            if silent.is_empty() { String::new() } else { format!(" (not consented: {silent})") };
        format!(
            "from {} {holder} is guaranteed {own} {class} of its own and {reserved} are reserved, {} are missing: \
             {lent} are lent with consent and {asked} without{consents}; {}",
            moment::show(at),
            reserved.saturating_sub(*own),
            self.fitting_words(name, terms)
        )
    }

    /// Who would lend to the node and has not consented, with how much.
    fn without_consent(
        &self,
        holder: &ProjectPath,
        class: &GpuClass,
        at: UnixMicros,
    ) -> BTreeMap<&'a ProjectPath, GpuMilli> {
        let loans = self.book.loans.values().filter(|loan| {
            loan.consent.is_none()
                && loan.during.contains(at)
                && loan.class == *class
                && loan.borrower.is_within(holder.as_str())
                && !loan.lender.is_within(holder.as_str())
        });
        let mut lenders: BTreeMap<&ProjectPath, GpuMilli> = BTreeMap::new();
        for loan in loans {
            *lenders.entry(&loan.lender).or_default() += loan.gpus;
        }
        lenders
    }

    /// What a node is guaranteed without loans.
    fn own(&self, path: &ProjectPath, class: &GpuClass, at: UnixMicros) -> GpuMilli {
        let node = self.book.nodes.get(path).filter(|_| self.book.is_valid(path, at));
        node.map_or(GpuMilli::ZERO, |node| node.guarantee(class, at))
    }
}
