use std::{io, path::Path};

use p2p::{
    KeyType, Keypair,
    key_file::{self, KeyFileError},
};
use serde_json::json;

use crate::{args::KeyCommand, failure::Failure, output::Output};

pub(crate) fn run(command: &KeyCommand, out: &Output) -> Result<u8, Failure> {
    match command {
        KeyCommand::New { file, key_type } => {
            show("key_created", file, &create(file, *key_type)?, out);
        }
        KeyCommand::Show { file } => show("key", file, &load(file)?, out),
        KeyCommand::Export { file, pem } => {
            let key = load(file)?;
            key_file::save_pem(pem, &key).map_err(|error| not_created(&error))?;
            show("key_exported", pem, &key, out);
        }
        KeyCommand::Import { pem, file } => {
            let key = load(pem)?;
            key_file::save(file, &key).map_err(|error| not_created(&error))?;
            show("key_imported", file, &key, out);
        }
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

fn create(file: &Path, key_type: KeyType) -> Result<Keypair, Failure> {
    let key = Keypair::generate_of(key_type).map_err(|error| Failure::new(error.to_string()))?;
    key_file::save(file, &key).map_err(|error| not_created(&error))?;
    Ok(key)
}

fn not_created(error: &KeyFileError) -> Failure {
    let failure = Failure::new(error.to_string());
    let KeyFileError::Create { path, source } = error else { return failure };
    let kind = source.kind();
    if kind == io::ErrorKind::AlreadyExists {
        let show = format!("`p2p key show {}`", path.display());
        failure.next(format!("give another name, or see whose key it is with {show}"))
    } else if kind == io::ErrorKind::NotFound {
        failure.next("make the folder first")
    } else {
        failure
    }
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
