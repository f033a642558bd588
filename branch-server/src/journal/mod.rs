//! The journal on real files: carries out `tally_ledger::journal`.
