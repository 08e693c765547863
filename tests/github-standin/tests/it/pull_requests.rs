//! Pull requests, comments and people.

use serde_json::json;
use workflows_github_standin::Role;

use crate::client::{Client, hub};

#[tokio::test]
async fn a_pull_request_lives() {
    let (hub, clock) = hub();
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("a", "1")]);
    repo.push("release", &[("r", "1")]);
    let head = repo.push("topic", &[("b", "1")]);
    let number = repo.as_user("alice").open_draft("Do it", "topic", "main");
    assert_eq!(number, 1);
    assert_eq!(repo.open_issue("An issue"), 2, "issues and pull requests share numbers");
    let client = Client::new(&hub, Some(&hub.token_of("octocat")));
    let get = || client.get("/repos/acme/api/pulls/1");
    let found = get().await;
    assert_eq!(found.body["head"]["sha"], head);
    assert_eq!(found.body["draft"], true);
    assert_eq!(found.body["mergeable"], true);

    clock.advance(jiff::SignedDuration::from_secs(60));
    let head = repo.push("topic", &[("b", "2")]);
    repo.mark_ready(number);
    repo.retarget(number, "release");
    repo.label(number, "bug");
    let found = get().await;
    assert_eq!(found.body["head"]["sha"], head);
    assert_eq!(found.body["base"]["ref"], "release");
    assert_eq!(found.body["draft"], false);
    assert_eq!(found.body["labels"][0]["name"], "bug");
    assert_ne!(found.body["updated_at"], found.body["created_at"]);

    repo.close(number);
    assert_eq!(get().await.body["state"], "closed");
    repo.reopen(number);
    assert_eq!(get().await.body["state"], "open");
    let files = client.get("/repos/acme/api/pulls/1/files").await;
    assert_eq!(files.body[0]["filename"], "b");
    let merged = repo.merge(number);
    let found = get().await;
    assert_eq!(found.body["merged"], true);
    assert_eq!(repo.branch("release"), Some(merged));
}

#[tokio::test]
async fn a_fork_brings_its_commits() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("a", "1")]);
    let fork = repo.as_user("mallory").fork();
    let head = fork.push("evil", &[("a", "2")]);
    let client = Client::new(&hub, None);
    let path = format!("/repos/acme/api/git/commits/{head}");
    assert_eq!(client.get(&path).await.status, 404);
    let number = repo.as_user("mallory").open_pull_request("Trust me", "mallory:evil", "main");
    assert_eq!(client.get(&path).await.status, 200);
    let found = client.get(&format!("/repos/acme/api/pulls/{number}")).await;
    assert_eq!(found.body["head"]["repo"]["full_name"], "mallory/api");
    let at = client.get(&format!("/repos/acme/api/git/ref/pull/{number}/head")).await;
    assert_eq!(at.body["object"]["sha"], head);
    fork.delete();
    let found = client.get(&format!("/repos/acme/api/pulls/{number}")).await;
    assert!(found.body["head"]["repo"].is_null());
}

#[tokio::test]
async fn pages_lead_to_each_other() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let issue = repo.open_issue("Talk");
    for number in 0..5 {
        repo.comment(issue, &format!("comment {number}"));
    }
    let client = Client::new(&hub, None);
    let first = client.get("/repos/acme/api/issues/1/comments?per_page=2").await;
    assert_eq!(first.body.as_array().unwrap().len(), 2);
    assert_eq!(first.link("prev"), None);
    assert!(first.link("last").unwrap().ends_with("page=3"));
    let second = client.get(&first.link("next").unwrap()).await;
    assert_eq!(second.body[0]["body"], "comment 2");
    let third = client.get(&second.link("next").unwrap()).await;
    assert_eq!(third.body.as_array().unwrap().len(), 1);
    assert_eq!(third.link("next"), None);
    assert!(third.link("first").unwrap().ends_with("page=1"));
    // More than a hundred is not to be had.
    let all = client.get("/repos/acme/api/issues/1/comments?per_page=100").await;
    assert_eq!(all.header("link"), None);
}

#[tokio::test]
async fn refs_have_pages_too() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let commit = repo.push("main", &[("a", "1")]);
    for number in 1..=31 {
        repo.force_push(&format!("topic/{number}"), &commit);
    }
    let client = Client::new(&hub, None);
    let first = client.get("/repos/acme/api/git/matching-refs/heads/topic").await;
    assert_eq!(first.body.as_array().unwrap().len(), 30);
    let second = client.get(&first.link("next").unwrap()).await;
    assert_eq!(second.body.as_array().unwrap().len(), 1);
    assert_eq!(second.link("next"), None);
}

#[tokio::test]
async fn people_may_what_they_may() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    repo.set_role("bob", Some(Role::Maintain));
    repo.set_custom_role("carol", "release-captain", Role::Write);
    hub.user("mallory");
    hub.add_team("acme", "reviewers", &["dave"]);
    hub.invite_to_team("acme", "reviewers", "erin");
    hub.add_member("acme", "owner", true);
    let client = Client::new(&hub, Some(&hub.token_of("owner")));
    let of = async |login: &str| {
        let path = format!("/repos/acme/api/collaborators/{login}/permission");
        let body = client.get(&path).await.body;
        (body["permission"].clone(), body["role_name"].clone())
    };
    assert_eq!(of("bob").await, (json!("write"), json!("maintain")));
    assert_eq!(of("carol").await, (json!("write"), json!("release-captain")));
    assert_eq!(of("mallory").await, (json!("read"), json!("read")), "the repository is public");
    assert_eq!(of("owner").await, (json!("admin"), json!("admin")));
    assert_eq!(client.get("/repos/acme/api/collaborators/nobody/permission").await.status, 404);
    let state = async |login: &str| {
        let path = format!("/orgs/acme/teams/reviewers/memberships/{login}");
        client.get(&path).await.body["state"].clone()
    };
    assert_eq!(state("dave").await, "active");
    assert_eq!(state("erin").await, "pending");
    assert!(state("bob").await.is_null());
    let outsider = Client::new(&hub, Some(&hub.token_of("mallory")));
    let refused = outsider.get("/repos/acme/api/collaborators/bob/permission").await;
    assert_eq!(refused.status, 403);
}
