//! How far a long command is, on standard error: a bar on a terminal, plain lines otherwise.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

/// How often a line says how far it is.
const LINES: Duration = Duration::from_secs(10);

/// What the bar says: `copying ####---- 1,200,000 of 3,000,000 rows, 30,000/s, 1m left`.
const BAR: &str = "{prefix} {bar:24} {human_pos} of {human_len} {msg}, {per_sec:0}, {eta} left";

/// A command that is under way. The bar vanishes when this is dropped.
pub struct Progress {
    bar: ProgressBar,
    /// How much had been done when it began.
    before: u64,
    begun: Instant,
    said: Instant,
}

impl Progress {
    /// Begins with `done` of `total`: `doing` is such as "copying" and `unit` such as "rows".
    pub fn begin(doing: &'static str, unit: &'static str, done: u64, total: u64) -> Self {
        let bar = ProgressBar::new(total).with_position(done).with_prefix(doing).with_message(unit);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("##-"));
        }
        bar.reset_eta(); // what was done before took no time now
        let now = Instant::now();
        Self { bar, before: done, begun: now, said: now }
    }

    /// So many more are done.
    pub fn advance(&mut self, by: u64) {
        self.bar.inc(by);
        if self.bar.is_hidden() && self.said.elapsed() >= LINES {
            self.said = Instant::now();
            self.say(&self.line(self.begun.elapsed()));
        }
    }

    /// Says a sentence, above the bar. Nobody may read it.
    pub fn say(&self, sentence: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "{sentence}");
        });
    }

    fn line(&self, elapsed: Duration) -> String {
        let (position, total) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let (doing, unit, done) = (self.bar.prefix(), self.bar.message(), position.saturating_sub(self.before));
        let millis = elapsed.as_millis().max(1);
        let rate = u128::from(done) * 1000 / millis;
        let left = u128::from(total.saturating_sub(position)) * millis / u128::from(done.max(1));
        let [rate, left] = [rate, left].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let (position, total, rate) = (HumanCount(position), HumanCount(total), HumanCount(rate));
        let left = HumanDuration(Duration::from_millis(left));
        format!("{doing}: {position} of {total} {unit}, {rate} a second, {left} left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left_of_what_was_done_since_it_began() {
        let mut progress = Progress::begin("copying", "rows", 1000, 3_001_000);
        progress.advance(1_200_000);
        let line = progress.line(Duration::from_secs(40));
        assert_eq!(line, "copying: 1,201,000 of 3,001,000 rows, 30,000 a second, 60 seconds left");
        let nothing = Progress::begin("copying", "rows", 0, 0).line(Duration::ZERO);
        assert_eq!(nothing, "copying: 0 of 0 rows, 0 a second, 0 seconds left");
    }
}
