//! Who may call what, over the real server: every method of the reflected services for every role, against the
//! table that people read.

use std::collections::BTreeMap;
use std::fs;

use gotgan_proto::v1::Role;
use gotgan_tests::jobs::ALPHA;
use gotgan_tests::{Api, Cluster, Database, deadline, programs};
use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

on_each_database! {
    every_method_is_open_to_the_roles_of_the_table_and_to_no_other,
}

/// Columns of the page, in its order.
const ROLES: [(&str, Role); 4] = [
    ("admin", Role::Admin),
    ("allocator", Role::Allocator),
    ("operator", Role::Operator),
    ("member", Role::Member),
];

/// Served, but reflection of this version does not show the one before it.
const NOT_REFLECTED: &str = "grpc.reflection.v1alpha.";

/// The page's table: by method, the words of its head under which it says yes.
fn page() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(programs::checkout().join("docs/permissions.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines: Vec<Vec<String>> =
        text.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    let head = lines[0].clone();
    let rows = lines.into_iter().skip(2).map(|row| {
        let allowed = head.iter().zip(&row).skip(1).filter(|(_, cell)| *cell == "yes");
        (row[0].trim_matches('`').to_owned(), allowed.map(|(name, _)| name.clone()).collect())
    });
    rows.collect()
}

async fn every_method_is_open_to_the_roles_of_the_table_and_to_no_other(database: Database) {
    let cluster = Cluster::start(database).await;
    let page = page();
    let methods = reflected(&cluster.api).await;
    assert!(methods.len() > 25, "reflection shows too little: {methods:?}");
    let mut callers = vec![("nobody", cluster.api.without_token())];
    for (word, role) in ROLES {
        let projects: &[&str] = if role == Role::Member { &[ALPHA] } else { &[] };
        let made = cluster.api.create_token(word, role, projects, 0).await;
        callers.push((word, cluster.api.with_token(&made.token)));
    }
    let mut faults = Vec::new();
    for method in &methods {
        let Some(allowed) = page.get(method) else {
            faults.push(format!("{method} is served but not in docs/permissions.md"));
            continue;
        };
        for (word, api) in &callers {
            let may = allowed.iter().any(|name| name == word);
            let code = call(api, method).await;
            let let_in = !matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            // A public method may refuse what is in the request; then it has looked at it.
            let public = allowed.iter().any(|name| name == "nobody");
            if may != let_in && !public {
                faults.push(format!("{method} as {word}: {code:?}, but the page says {may}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let known = page.keys().filter(|method| !methods.contains(method));
    let known: Vec<&String> = known.filter(|method| !method.starts_with(NOT_REFLECTED)).collect();
    assert!(known.is_empty(), "in docs/permissions.md but not served: {known:?}");
}

/// Calls a method with an empty message; OK if it began to answer or is waiting for more.
async fn call(api: &Api, method: &str) -> Code {
    let mut client = tonic::client::Grpc::new(api.line());
    client.ready().await.unwrap();
    let path = format!("/{method}").parse().unwrap();
    let messages = tokio_stream::iter([()]).chain(tokio_stream::pending());
    // As a stream in both directions every method can be called; the server reads what it wants.
    let single = Request::new(tokio_stream::iter([()]));
    let answer = async {
        let codec = ProstCodec::<(), ()>::default();
        match method.ends_with("Session") || method.ends_with("ServerReflectionInfo") {
            true => client.streaming(Request::new(messages), path, codec).await,
            false => client.streaming(single, path, codec).await,
        }
    };
    let first = async {
        let mut stream = answer.await?.into_inner();
        stream.message().await
    };
    match tokio::time::timeout(std::time::Duration::from_millis(500), first).await {
        Ok(Ok(_)) | Err(_) => Code::Ok,
        Ok(Err(status)) => status.code(),
    }
}

/// Every method of every service, as in `gotgan.v1.Jobs/Submit`.
async fn reflected(api: &Api) -> Vec<String> {
    let services = ask(api, MessageRequest::ListServices(String::new())).await;
    let Some(MessageResponse::ListServicesResponse(list)) = services.message_response else {
        panic!("no list of services: {services:?}")
    };
    let mut methods = Vec::new();
    for service in list.service {
        let answer = ask(api, MessageRequest::FileContainingSymbol(service.name.clone())).await;
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("no description of {}: {answer:?}", service.name)
        };
        let files = files.file_descriptor_proto.iter();
        for file in files.map(|bytes| FileDescriptorProto::decode(bytes.as_slice()).unwrap()) {
            for found in &file.service {
                let name = format!("{}.{}", file.package(), found.name());
                if name == service.name {
                    methods.extend(
                        found.method.iter().map(|method| format!("{name}/{}", method.name())),
                    );
                }
            }
        }
    }
    methods.sort();
    methods.dedup();
    methods
}

async fn ask(api: &Api, question: MessageRequest) -> ServerReflectionResponse {
    let mut client = ServerReflectionClient::new(api.line());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let answer = client.server_reflection_info(tokio_stream::iter([request]));
    let mut answers = deadline::within("reflection", answer).await.unwrap().into_inner();
    answers.message().await.unwrap().expect("an answer")
}
