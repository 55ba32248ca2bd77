//! Who is in the cluster and where replicas belong: the registry by tables, the controller by
//! transcripts of a toy cluster that carries its orders out, and both under random trouble.

mod anew;
mod controller;
mod observers;
mod registry;
mod slow;
mod toy;
mod trouble;
mod unfit;
