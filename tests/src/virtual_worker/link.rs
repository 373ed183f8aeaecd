//! How a virtual worker becomes the node it says it is, and reaches the scheduler.

use std::time::Duration;

use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::{JoinRequest, WorkerMessage};
use gotgan_proto::{WORKER_MESSAGE_MAX_BYTES, v1};
use gotgan_worker::lines::Lines;
use rcgen::{CertificateParams, DnType, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::api;

/// A scheduler that takes longer to answer is tried again.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Names the node where there is no certificate to say it.
const NODE_HEADER: &str = "x-gotgan-node";

/// Address of the scheduler and what proves who the node is.
#[derive(Debug, Clone)]
pub struct Link {
    node: String,
    url: String,
    /// Of schedulers that may lead instead.
    others: Vec<String>,
    tls: Option<ClientTlsConfig>,
}

/// A key with the request for its certificate, both in PEM.
#[derive(Debug)]
pub struct CertificateRequest {
    /// Stays with the node.
    pub key_pem: String,
    /// What the scheduler signs.
    pub request_pem: String,
}

impl CertificateRequest {
    /// For a node of that name.
    ///
    /// # Panics
    /// If no request can be made of the name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec![node.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, node);
        let request = params.serialize_request(&key).and_then(|request| request.pem());
        Self { key_pem: key.serialize_pem(), request_pem: request.expect("a request can be made") }
    }
}

impl Link {
    /// Joins with a one-time token over TLS.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If the address or a certificate is none.
    pub async fn join(url: &str, ca_pem: &str, token: &str, node: &str) -> Result<Self, Status> {
        Self::join_over(api::channel(url, Some(ca_pem)), url, token, node).await
    }

    /// The same over a connection that is there: many can join over one.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If the address or a certificate is none.
    pub async fn join_over(
        channel: Channel,
        url: &str,
        token: &str,
        node: &str,
    ) -> Result<Self, Status> {
        let made = CertificateRequest::new(node);
        let request = JoinRequest {
            join_token: token.to_owned(),
            node: node.to_owned(),
            certificate_request_pem: made.request_pem,
        };
        let answer = WorkersClient::new(channel).join(request).await?.into_inner();
        Ok(Self::with_certificate(
            url,
            node,
            &answer.ca_pem,
            &answer.certificate_pem,
            &made.key_pem,
        ))
    }

    /// With a certificate that was got elsewhere.
    #[must_use]
    pub fn with_certificate(
        url: &str,
        node: &str,
        ca_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca_pem))
            .identity(Identity::from_pem(certificate_pem, key_pem));
        Self { node: node.to_owned(), url: url.to_owned(), others: Vec::new(), tls: Some(tls) }
    }

    /// Without TLS, to a scheduler that allows it.
    #[must_use]
    pub fn insecure(url: &str, node: &str) -> Self {
        Self { node: node.to_owned(), url: url.to_owned(), others: Vec::new(), tls: None }
    }

    /// The same node at another address.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), others: Vec::new(), ..self.clone() }
    }

    /// The same node, told of more schedulers: it finds the one that leads.
    #[must_use]
    pub fn also_at(mut self, urls: &[String]) -> Self {
        self.others = urls.to_vec();
        self
    }

    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Addresses of the schedulers it was told of.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        std::iter::once(&self.url).chain(&self.others).cloned().collect()
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<WorkersClient<Channel>, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(self.url.clone())?.connect_timeout(CONNECT_LIMIT);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        Ok(client(endpoint.tcp_nodelay(true).connect().await?))
    }

    /// Connections to several schedulers, as the real worker keeps them.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines::new(self.tls.clone())
    }

    /// The request that opens a stream of these messages.
    pub fn request<S>(&self, messages: S) -> Request<S>
    where
        S: tokio_stream::Stream<Item = WorkerMessage>,
    {
        let mut request = Request::new(messages);
        if self.tls.is_none() {
            let node = self.node.parse().expect("names of nodes are plain");
            request.metadata_mut().insert(NODE_HEADER, node);
        }
        request
    }

    /// Opens a stream with only its first message, and returns what the scheduler says to it.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn register(
        &self,
        register: v1::Register,
    ) -> Result<Option<v1::SchedulerMessage>, Status> {
        let mut client = self.connect().await.expect("a connection");
        let message =
            WorkerMessage { message: Some(v1::worker_message::Message::Register(register)) };
        let messages = tokio_stream::iter([message]);
        client.session(self.request(messages)).await?.into_inner().message().await
    }
}

/// A client that takes messages of any size that the protocol allows.
#[must_use]
pub fn client(channel: Channel) -> WorkersClient<Channel> {
    WorkersClient::new(channel)
        .max_decoding_message_size(WORKER_MESSAGE_MAX_BYTES)
        .max_encoding_message_size(WORKER_MESSAGE_MAX_BYTES)
}
