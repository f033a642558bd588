//! `tally demo two-phase`: a payment between two branches is done on both or on neither, whoever is killed when.
//!
//! To kill somebody between two steps, the steps are pulled apart: the destination is stopped (SIGSTOP) while the source
//! prepares, the registry while the destination votes. Everything else goes its usual way.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tally_protocol::TransferId;

use super::stage::{Actor, Ending, Payment, Stage};

/// Shows payments between two branches: one that is done, one that is refused, and then with branches and registry killed
/// between the steps. Ends with 1 where the books of the two branches do not agree
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Folder of the demo's bank, which must be empty or not there; by default a temporary one, removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What alice has at first, in cents.
const DEPOSIT: u64 = 100_000;
/// A vote leaves its branch when the record behind it is durable: some flushes of even a slow disk.
const VOTE_LEAVES_WITHIN: Duration = Duration::from_millis(300);

/// What a scene was about: the transfer, and what the payer was told.
type Told = anyhow::Result<(TransferId, Ending)>;
type Scene = fn(&mut Stage) -> Told;

const SCENES: [(&str, Scene); 8] = [
    ("A payment from a customer of branch 1 to one of branch 2", commit),
    ("A payment to an account that branch 2 does not have", abort),
    ("The payee's branch is killed between prepare and decision", destination_killed),
    ("The payer's branch is killed between prepare and decision", source_killed),
    ("The registry is killed while it gathers votes", killed_while_collecting),
    ("The registry is killed when all have voted and nothing is decided", killed_before_the_decision),
    ("The registry is killed when it has decided and one branch has not heard", killed_after_the_decision),
    ("The registry is killed when all is over, and the payment is sent again", killed_when_done),
];

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("tally-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    let played = play(&dir);
    if args.dir.is_none() {
        // What is left of a demo that failed is what somebody wants to look at.
        match &played {
            Ok(()) => std::fs::remove_dir_all(&dir).with_context(|| format!("{}", dir.display()))?,
            Err(_) => eprintln!("the bank's folders and logs are in {}", dir.display()),
        }
    }
    played.map(|()| ExitCode::SUCCESS)
}

fn play(dir: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut stage = Stage::set(dir, DEPOSIT)?;
    let file = stage.file();
    let registry = file.registry.as_ref().context("the bank has a registry")?;
    println!(
        "A bank: registry {}, branch 1 {}, branch 2 {}. alice (branch 1) has 1000.00 EUR, carol (branch 2) nothing.",
        registry.endpoints[0], file.branches[0].endpoint, file.branches[1].endpoint
    );
    for (number, (title, scene)) in SCENES.into_iter().enumerate() {
        println!("\n{}. {title}", number + 1);
        let (id, ending) = scene(&mut stage).with_context(|| title.to_owned())?;
        let took = stage.settle_down().with_context(|| title.to_owned())?;
        let books = stage.check(id, &ending).with_context(|| title.to_owned())?;
        println!("   the payer was told: {ending}; nothing in doubt after {took:.1?}");
        println!("   checked: {books}");
    }
    stage.strike()?;
    println!("\nAll {} payments ended alike on both branches, in {:.0?}.", SCENES.len(), begun.elapsed());
    Ok(())
}

fn commit(stage: &mut Stage) -> Told {
    let payment = stage.payment(1_000)?;
    payment.send();
    let id = payment.id;
    println!("   alice pays carol 10.00 EUR: {id}");
    let ending = stage.ending(payment)?;
    ensure!(ending == Ending::Done, "nothing stood in its way, and it was {ending}");
    Ok((id, ending))
}

fn abort(stage: &mut Stage) -> Told {
    let payment = stage.payment_to_nobody(1_000)?;
    payment.send();
    let id = payment.id;
    println!("   alice pays an unknown account 10.00 EUR: {id}");
    let ending = stage.ending(payment)?;
    let why = "refused: credit_account_not_found";
    ensure!(ending.to_string() == why, "it must be {why}, and was {ending}");
    println!("   branch 2 has voted no, so branch 1 gave back what it had held");
    Ok((id, ending))
}

/// A payment that the source has prepared and the registry gathers votes for; the destination is stopped.
fn caught_while_collecting(stage: &Stage) -> anyhow::Result<Payment> {
    let payment = stage.payment(500)?;
    stage.freeze(Actor::Destination)?;
    payment.send();
    println!("   branch 2 is stopped; alice pays carol 5.00 EUR: {}", payment.id);
    stage.wait_until_prepared(Actor::Source)?;
    stage.wait_until_collecting()?;
    println!("   branch 1 has prepared (it holds the 5.00), and the registry waits for branch 2's vote");
    Ok(payment)
}

/// A payment that both branches have prepared; the registry is stopped, with the votes before it.
fn caught_between_prepare_and_decision(stage: &Stage) -> anyhow::Result<Payment> {
    let payment = caught_while_collecting(stage)?;
    stage.freeze(Actor::Registry)?;
    stage.thaw(Actor::Destination)?;
    stage.wait_until_prepared(Actor::Destination)?;
    std::thread::sleep(VOTE_LEAVES_WITHIN);
    println!("   the registry is stopped, branch 2 goes on and has prepared, too: nobody can know the outcome");
    Ok(payment)
}

fn destination_killed(stage: &mut Stage) -> Told {
    let payment = caught_between_prepare_and_decision(stage)?;
    let id = payment.id;
    stage.kill(Actor::Destination)?;
    stage.thaw(Actor::Registry)?;
    println!("   kill -9 branch 2; the registry goes on and decides without it");
    let ending = stage.ending(payment)?;
    println!("   branch 2 starts again: its journal knows of the part that it had prepared");
    stage.restart(Actor::Destination)?;
    Ok((id, ending))
}

fn source_killed(stage: &mut Stage) -> Told {
    let payment = caught_between_prepare_and_decision(stage)?;
    let id = payment.id;
    stage.kill(Actor::Source)?;
    stage.thaw(Actor::Registry)?;
    println!("   kill -9 branch 1; the payer's client has lost its connection, and tries again with the same id");
    stage.restart(Actor::Source)?;
    println!("   branch 1 starts again");
    let ending = stage.ending(payment)?;
    Ok((id, ending))
}

fn killed_while_collecting(stage: &mut Stage) -> Told {
    let payment = caught_while_collecting(stage)?;
    kill_the_registry(stage, payment, true)
}

fn killed_before_the_decision(stage: &mut Stage) -> Told {
    let payment = caught_between_prepare_and_decision(stage)?;
    kill_the_registry(stage, payment, false)
}

/// Of what was not decided its log knows nothing: branch 1 asks, and that is an abort.
fn kill_the_registry(stage: &mut Stage, payment: Payment, is_destination_stopped: bool) -> Told {
    let id = payment.id;
    stage.kill(Actor::Registry)?;
    println!("   kill -9 the registry");
    if is_destination_stopped {
        stage.thaw(Actor::Destination)?;
    }
    stage.restart(Actor::Registry)?;
    println!("   it starts again; its log has no decision, and a branch that asks is told to give back");
    let ending = stage.ending(payment)?;
    ensure!(ending != Ending::Done, "what was not decided before it was killed cannot be done");
    Ok((id, ending))
}

fn killed_after_the_decision(stage: &mut Stage) -> Told {
    let payment = caught_between_prepare_and_decision(stage)?;
    let id = payment.id;
    stage.freeze(Actor::Destination)?;
    stage.thaw(Actor::Registry)?;
    let ending = stage.ending(payment)?;
    println!("   branch 2 is stopped, the registry goes on: the payer hears `{ending}`, branch 2 nothing");
    let open = stage.open_decisions()?;
    ensure!(open == 1.0, "{open} decisions are not carried out by all, not 1");
    stage.kill(Actor::Registry)?;
    println!("   kill -9 the registry; branch 2 goes on");
    stage.thaw(Actor::Destination)?;
    stage.restart(Actor::Registry)?;
    println!("   the registry starts again; the decision is in its log");
    Ok((id, ending))
}

fn killed_when_done(stage: &mut Stage) -> Told {
    let (id, _) = commit(stage)?;
    stage.settle_down()?;
    stage.kill(Actor::Registry)?;
    stage.restart(Actor::Registry)?;
    println!("   kill -9 the registry, which starts again; the payer sends the same payment once more");
    let again = stage.payment_again(id, 1_000)?;
    again.send();
    let ending = stage.ending_again(again)?;
    ensure!(ending == Ending::Done, "it was done, and the repeat was {ending}");
    Ok((id, ending))
}
