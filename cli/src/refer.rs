//! How people name jobs: `123`, the task of an array `123_4`, and tasks `123_[5-9,12]`.

use std::fmt;

use gotgan_core::admit;

use crate::{client::Client, error::Error, units, watch};

/// A job, or tasks of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRef {
    /// The job, or the array.
    pub job_id: u64,
    /// Indexes of tasks, as the API takes them; empty: the job itself, or all of the array.
    pub tasks: String,
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tasks.as_str() {
            "" => write!(f, "{}", self.job_id),
            one if one.bytes().all(|byte| byte.is_ascii_digit()) => {
                write!(f, "{}_{one}", self.job_id)
            }
            many => write!(f, "{}_[{many}]", self.job_id),
        }
    }
}

impl JobRef {
    /// Reads one.
    ///
    /// # Errors
    /// When it is not written like one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((job, tasks)) = text.split_once('_') else {
            return units::parse_job_id(text).map(|job_id| Self { job_id, tasks: String::new() });
        };
        let job_id = units::parse_job_id(job)?;
        let inner = tasks.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let tasks = inner.unwrap_or(tasks);
        admit::index_ranges(tasks)
            .map_err(|_| format!("`{text}` names no tasks; write 123_4 or 123_[5-9,12]"))?;
        Ok(Self { job_id, tasks: tasks.to_owned() })
    }

    /// Reads one that names a single job or task.
    ///
    /// # Errors
    /// When it is not written like one.
    pub fn parse_one(text: &str) -> Result<Self, String> {
        let found = Self::parse(text)?;
        match admit::index_ranges(&found.tasks).as_deref() {
            Ok([(first, last)]) if first == last => Ok(found),
            _ if found.tasks.is_empty() => Ok(found),
            _ => Err(format!("`{text}` names several tasks; name one, as in 123_4")),
        }
    }

    /// The number of the job, or of the one task.
    ///
    /// # Errors
    /// The scheduler's refusal, that it was not reached, or that the array has no such task.
    pub async fn resolve(&self, client: &Client) -> Result<u64, Error> {
        let Ok(index) = self.tasks.parse::<u32>() else { return Ok(self.job_id) };
        let job = watch::get_job(client, self.job_id).await?;
        let asked = job.spec.map(|spec| spec.array).unwrap_or_default();
        let array = admit::read_array(&asked).ok().filter(|_| job.array_job_id == 0);
        let place = array.and_then(|array| array.place_of(index)).ok_or_else(|| {
            let has =
                if asked.is_empty() { "is no array".to_owned() } else { format!("has {asked}") };
            Error::invalid(format!("job {} has no task {index}", self.job_id), format!("it {has}"))
        })?;
        Ok(self.job_id.saturating_add(1).saturating_add(u64::from(place)))
    }
}

/// The numbers of several jobs.
///
/// # Errors
/// As [`JobRef::resolve`].
pub async fn resolve_all(refs: &[JobRef], client: &Client) -> Result<Vec<u64>, Error> {
    let mut job_ids = Vec::with_capacity(refs.len());
    for one in refs {
        job_ids.push(one.resolve(client).await?);
    }
    Ok(job_ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn jobs_and_tasks_are_named_as_they_are_shown() {
        for text in ["123", "123_4", "123_[5-9,12]", "7_[1-2]"] {
            assert_eq!(JobRef::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(JobRef::parse("7_[3]").unwrap().to_string(), "7_3");
        for text in ["", "0", "a", "1_", "1_a", "1_[", "1_[1", "1_[2-1]", "1_[0-8:2]", "_1"] {
            assert!(JobRef::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn where_one_job_is_meant_a_range_is_refused() {
        assert!(JobRef::parse_one("5_[1-2]").unwrap_err().contains("name one"));
        assert!(JobRef::parse_one("5_[7]").is_ok() && JobRef::parse_one("5").is_ok());
    }
}
