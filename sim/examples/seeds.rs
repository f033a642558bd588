//! Runs the simulator alone.
use clap::Parser;
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    sim: tally_sim::SimArgs,
}
fn main() -> anyhow::Result<()> {
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    tally_sim::run(&Cli::parse().sim)
}
