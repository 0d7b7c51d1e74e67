//! The table that goes into the README.

use crate::Options;
use crate::rows::Figures;

/// The head of the table: machine and conditions belong to the figures.
pub fn head(options: &Options) {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{cpus} processors, Linux {}, load {} at the start; median of {} alternating runs of {} s, images of {} MiB \
         (copies: MiB/s over 1 GiB)",
        release.trim(),
        load.split(' ').next().unwrap_or("?"),
        options.runs,
        options.seconds,
        options.mib
    );
    println!();
    println!("| row | peer | peer's requests/s or MiB/s | ours | ratio (least–most) | must | aim | |");
    println!("|---|---|---|---|---|---|---|---|");
}

/// One line of it: what is asked of the ratio, and what was found.
pub fn line(name: &str, peer: &str, (must, aim): (f64, f64), figures: &Figures) {
    let mut ratios: Vec<f64> =
        figures.ours.iter().zip(&figures.theirs).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = median(&ratios);
    let verdict = match ratio {
        r if r >= aim => "aim",
        r if r >= must => "must",
        _ => "missed",
    };
    println!(
        "| {name} | {peer} | {:.0} | {:.0} | {ratio:.2} ({:.2}–{:.2}) | {must:.2} | {aim:.2} | {verdict} |",
        median(&sorted(&figures.theirs)),
        median(&sorted(&figures.ours)),
        ratios.first().copied().unwrap_or(f64::NAN),
        ratios.last().copied().unwrap_or(f64::NAN),
    );
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle one of sorted values.
fn median(values: &[f64]) -> f64 {
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
