//! Progress on a terminal, and interruption.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use coracle_codec::observe::{Observer, Stage};
use coracle_sys::interrupt::{self, Interrupt};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a bar while work goes on and stops the work on a signal.
pub struct Watch {
    interrupt: Option<Interrupt>,
    bar: Option<Mutex<Bar>>,
}

struct Bar {
    bar: ProgressBar,
    stage: Option<Stage>,
    drawn: Instant,
}

/// Between two updates of the bar.
const PERIOD: Duration = Duration::from_millis(50);

impl Watch {
    /// A watch; `quiet` shows nothing, and so does standard error that is no terminal.
    pub fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let bar = visible.then(|| {
            let style = ProgressStyle::with_template(
                "{msg:>9} [{bar:30}] {bytes:>10} / {total_bytes:>10}  {bytes_per_sec}  {elapsed}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
            let bar = ProgressBar::new(0).with_style(style);
            Mutex::new(Bar { bar, stage: None, drawn: Instant::now() - PERIOD })
        });
        // Without handlers a signal still ends the process; only the message is less kind.
        Watch { interrupt: interrupt::install().ok(), bar }
    }

    /// The signal that stopped the work.
    pub fn signal(&self) -> Option<i32> {
        self.interrupt.as_ref().and_then(Interrupt::signal)
    }
}

impl Observer for Watch {
    fn progress(&self, stage: Stage, done: u64, total: u64) {
        let Some(bar) = &self.bar else { return };
        // Who finds it locked is late anyway.
        let Ok(mut bar) = bar.try_lock() else { return };
        let new = bar.stage != Some(stage);
        if !new && bar.drawn.elapsed() < PERIOD {
            return;
        }
        if new {
            bar.bar.reset();
            bar.bar.set_message(stage.name());
            bar.stage = Some(stage);
        }
        bar.bar.set_length(total.max(done));
        bar.bar.set_position(done);
        bar.drawn = Instant::now();
    }

    fn cancelled(&self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::raised)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(Ok(bar)) = self.bar.as_mut().map(Mutex::get_mut) {
            bar.bar.finish_and_clear();
        }
    }
}
