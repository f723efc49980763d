use std::{io, path::Path};

use p2p::{
    Keypair,
    key_file::{self, KeyFileError},
};
use serde_json::json;

use crate::{args::KeyCommand, failure::Failure, output::Output};

pub(crate) fn run(command: &KeyCommand, out: &Output) -> Result<u8, Failure> {
    match command {
        KeyCommand::New { file } => show("key_created", file, &create(file)?, out),
        KeyCommand::Show { file } => show("key", file, &load(file)?, out),
    }
    Ok(0)
}

fn show(event: &str, file: &Path, key: &Keypair, out: &Output) {
    let public = key.public();
    let (peer, cid, kind) = (public.peer_id(), public.peer_id().to_cid(), public.key_type());
    let fields = [
        ("file", json!(file.display().to_string())),
        ("peer", json!(peer.to_string())),
        ("cid", json!(cid)),
        ("key_type", json!(kind.to_string())),
    ];
    let text = format_args!("peer id   {peer}\nas CID    {cid}\nkey type  {kind}");
    out.event(event, &fields, text);
}

fn create(file: &Path) -> Result<Keypair, Failure> {
    key_file::create(file).map_err(|error| {
        let failure = Failure::new(error.to_string());
        match create_error(&error) {
            Some(io::ErrorKind::AlreadyExists) => failure.next(format!(
                "give another name, or see whose key it is with `p2p key show {}`",
                file.display()
            )),
            Some(io::ErrorKind::NotFound) => failure.next("make the folder first"),
            _ => failure,
        }
    })
}

fn create_error(error: &KeyFileError) -> Option<io::ErrorKind> {
    if let KeyFileError::Create { source, .. } = error { Some(source.kind()) } else { None }
}

/// Reads a key file, and says what to do when it cannot be used.
pub(crate) fn load(file: &Path) -> Result<Keypair, Failure> {
    key_file::load(file).map_err(|error| {
        let failure = Failure::new(error.to_string());
        let new = format!("`p2p key new {}`", file.display());
        if let KeyFileError::Damaged { .. } = error {
            return failure.next(format!(
                "restore it from a copy, or move it away and make a new peer with {new}"
            ));
        }
        match read_error(&error) {
            Some(io::ErrorKind::NotFound) => failure.next(format!("make it with {new}")),
            Some(_) => failure.next("give a file that you may read"),
            None => failure,
        }
    })
}

fn read_error(error: &KeyFileError) -> Option<io::ErrorKind> {
    if let KeyFileError::Read { source, .. } = error { Some(source.kind()) } else { None }
}
