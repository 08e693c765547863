//! Git's objects through the API.

use serde_json::json;
use workflows_github_standin::ProblemKind;

use crate::client::{Client, hub};

#[tokio::test]
async fn what_was_pushed_can_be_read_in_every_way() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let client = Client::new(&hub, Some(&hub.token_of("octocat")));
    let empty = client.get("/repos/acme/api/git/ref/heads/main").await;
    assert_eq!(empty.status, 409);

    let first = repo.push("main", &[("a.txt", "one"), ("d/b.txt", "two")]);
    let second = repo.push("main", &[("a.txt", "three")]);
    repo.push("feature/x", &[("c.txt", "four")]);

    let found = client.get("/repos/acme/api/git/ref/heads/main").await;
    assert_eq!(found.body["object"]["sha"], second);
    assert_eq!(client.get("/repos/acme/api/git/ref/heads/mai").await.status, 404);
    let found = client.get("/repos/acme/api/git/matching-refs/heads/feature").await;
    assert_eq!(found.body[0]["ref"], "refs/heads/feature/x");

    let commit = client.get(&format!("/repos/acme/api/git/commits/{second}")).await;
    assert_eq!(commit.body["parents"][0]["sha"], first);
    let tree = commit.body["tree"]["sha"].as_str().unwrap_or_default().to_owned();
    let listed = client.get(&format!("/repos/acme/api/git/trees/{tree}?recursive=1")).await;
    let paths: Vec<_> =
        listed.body["tree"].as_array().unwrap().iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["a.txt", "d", "d/b.txt"]);
    // The id is git's own.
    assert_eq!(listed.body["tree"][0]["sha"], "1d19714ffbc272ba0da6eb419d66123c20527174");

    let file = client.get(&format!("/repos/acme/api/contents/d/b.txt?ref={first}")).await;
    assert_eq!(file.body["content"], "dHdv\n");
    let directory = client.get("/repos/acme/api/contents/d").await;
    assert_eq!(directory.body[0]["path"], "d/b.txt");
    assert_eq!(client.get("/repos/acme/api/contents/d/none").await.status, 404);

    let compared = client.get(&format!("/repos/acme/api/compare/{first}...{second}")).await;
    assert_eq!(compared.body["status"], "ahead");
    assert_eq!(compared.body["files"][0]["filename"], "a.txt");

    let marked = repo.annotated_tag("v1", &second);
    let tag = client.get("/repos/acme/api/git/ref/tags/v1").await;
    assert_eq!(tag.body["object"]["sha"], marked);
    assert_eq!(tag.body["object"]["type"], "tag");
    let tag = client.get(&format!("/repos/acme/api/git/tags/{marked}")).await;
    assert_eq!(tag.body["object"]["sha"], second);
}

#[tokio::test]
async fn a_tree_with_too_many_entries_is_truncated() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    repo.push_commits("main", 5);
    hub.limits(|limits| limits.tree_entries = 3);
    let client = Client::new(&hub, None);
    let listed = client.get("/repos/acme/api/git/trees/main?recursive=1").await;
    assert_eq!(listed.body["truncated"], true);
    assert_eq!(listed.body["tree"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn large_files_are_left_out_of_contents() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let bytes = vec![b'x'; (1 << 20) + 1];
    repo.push_file("main", "large.bin", &bytes, 0o100_644);
    let client = Client::new(&hub, None);
    let file = client.get("/repos/acme/api/contents/large.bin").await;
    assert_eq!(file.body["encoding"], "none");
    assert_eq!(file.body["content"], "");
    let headers = [("accept", "application/vnd.github.raw+json")];
    let response = client
        .send(reqwest::Method::GET, "/repos/acme/api/contents/large.bin", None, &headers)
        .await
        .unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), bytes.len());
}

#[tokio::test]
async fn a_directory_comes_in_one_query() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let commit = repo.push("main", &[(".tekton/ci.yaml", "a: 1"), (".tekton/x/y.yaml", "b: 2")]);
    let client = Client::new(&hub, Some(&hub.token_of("octocat")));
    let query = "query($o: String!, $p: String!) { repository(owner: $o, name: \"api\") { \
        directory: object(expression: $p) { __typename oid ... on Tree { entries { name mode oid \
        object { ... on Blob { text byteSize isTruncated } ... on Tree { entries { name } } } } } } } }";
    let variables = json!({ "o": "acme", "p": format!("{commit}:.tekton") });
    let graphql = format!("{}/api/graphql", hub.root());
    let answer = client.post(&graphql, json!({ "query": query, "variables": variables })).await;
    let entries = &answer.body["data"]["repository"]["directory"]["entries"];
    assert_eq!(entries[0]["object"]["text"], "a: 1", "{}", answer.body);
    assert_eq!(entries[1]["object"]["entries"][0]["name"], "y.yaml");
    let refused = client.post(&graphql, json!({ "query": "{ viewer { login } }" })).await;
    assert!(refused.body["errors"][0]["message"].as_str().unwrap().contains("viewer"));
}

#[tokio::test]
async fn a_renamed_repository_leads_to_its_new_name() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("a", "b")]);
    repo.rename("acme/service");
    let client = Client::new(&hub, None);
    let moved = client.get("/repos/acme/api/branches/main").await;
    assert_eq!(moved.status, 301);
    let to = moved.header("location").unwrap().to_owned();
    assert_eq!(to, format!("{}/repositories/{}/branches/main", hub.api(), repo.id()));
    assert_eq!(client.get(&to).await.body["name"], "main");
    assert_eq!(client.get("/repos/acme/service").await.body["full_name"], "acme/service");
}

#[tokio::test]
async fn what_is_private_is_not_there_for_others() {
    let (hub, _) = hub();
    hub.create_private_repo("acme/secret").push("main", &[("a", "b")]);
    hub.add_member("acme", "alice", false);
    let of = |login: &str| Client::new(&hub, Some(&hub.token_of(login)));
    assert_eq!(Client::new(&hub, None).get("/repos/acme/secret").await.status, 404);
    assert_eq!(of("mallory").get("/repos/acme/secret").await.status, 404);
    assert_eq!(of("alice").get("/repos/acme/secret").await.status, 200);
    let wrong = Client::new(&hub, Some("ghp_wrong")).get("/repos/acme/secret").await;
    assert_eq!((wrong.status.as_u16(), wrong.message()), (401, "Bad credentials"));
}

#[tokio::test]
async fn a_route_that_is_not_there_is_a_problem() {
    let (hub, _) = hub();
    let answer = Client::new(&hub, None).get("/repos/acme/api/nonsense").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-standin-unknown-route"), Some("true"));
    let problems = hub.take_problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].kind, ProblemKind::Route);
}

#[tokio::test]
async fn git_reads_what_its_credential_may_read() {
    let (hub, _) = hub();
    let repo = hub.create_private_repo("acme/secret");
    let head = repo.push("main", &[("a", "b")]);
    let token = hub.token_of("acme");
    let tip = async |credential: &str| {
        let url =
            format!("{}/acme/secret.git", hub.root().replace("://", &format!("://{credential}")));
        let output = tokio::process::Command::new("git")
            .args(["ls-remote", &url, "refs/heads/main"])
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        tip(&format!("x-access-token:{token}@")).await,
        format!("{head}\trefs/heads/main\n")
    );
    assert_eq!(tip("").await, "");
    assert_eq!(tip("x-access-token:wrong@").await, "");
}
