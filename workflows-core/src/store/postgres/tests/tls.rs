use std::time::Duration;

use workflows_test_postgres::{Durability, Server};

use super::{PostgresOptions, admit, open, own_server, push, raw, run_sql, try_open};
use crate::{ErrorKind, store::PostgresTls};

/// Makes the server offer encryption as a host; returns the authority's certificate.
async fn encrypt(server: &Server, options: &PostgresOptions, host: &str) -> String {
    let mut authority = rcgen::CertificateParams::new([]).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let root = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new([host.to_owned()]).expect("parameters");
    let certificate = certificate.signed_by(&key, &issuer).expect("a certificate");
    let certificate = server.keep_file("server.crt", &certificate.pem());
    let key = server.keep_file("server.key", &key.serialize_pem());
    let mut db = raw(options).await;
    for (setting, path) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
        run_sql(&mut db, &format!("ALTER SYSTEM SET {setting} = '{}'", path.display())).await;
    }
    run_sql(&mut db, "ALTER SYSTEM SET ssl = on").await;
    run_sql(&mut db, "SELECT pg_reload_conf()").await;
    root
}

async fn is_encrypted(options: &PostgresOptions) -> bool {
    sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut raw(options).await)
        .await
        .expect("an answer")
}

#[tokio::test]
async fn a_connection_is_as_protected_as_the_options_say() {
    let Some((server, options)) = own_server("TLS", Durability::None) else { return };
    let options = options.connect_timeout(Duration::from_secs(5));
    let root = encrypt(&server, &options, "127.0.0.1").await;
    let with = |tls| options.clone().tls(tls);
    // The address says `sslmode=disable`, and the option goes before it.
    super::soon("the server offers it", async || is_encrypted(&with(PostgresTls::Prefer)).await)
        .await;
    assert!(!is_encrypted(&options).await);
    assert!(!is_encrypted(&with(PostgresTls::Disable)).await);
    assert!(is_encrypted(&with(PostgresTls::Require)).await);

    let trusting = with(PostgresTls::VerifyFull).root_certificates(root.clone());
    let store = open(&trusting).await;
    admit(&store, push(0)).await;
    assert!(is_encrypted(&trusting).await);
    for tls in [PostgresTls::VerifyCa, PostgresTls::VerifyFull] {
        let error = try_open(&with(tls)).await.expect_err("an unknown authority was accepted");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("`root_certificates`"), "{error}");
    }

    let Some((server, options)) = own_server("TLS", Durability::None) else { return };
    let root = encrypt(&server, &options, "other.example").await;
    let with = |tls| options.clone().tls(tls).root_certificates(root.clone());
    super::soon("the server offers it", async || {
        is_encrypted(&options.clone().tls(PostgresTls::Prefer)).await
    })
    .await;
    open(&with(PostgresTls::VerifyCa)).await.close().await;
    let error = try_open(&with(PostgresTls::VerifyFull)).await.expect_err("another's name");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}
