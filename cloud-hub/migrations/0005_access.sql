-- Who may call the web API. Only hashes of secrets are kept. Times are UTC microseconds.

-- A token that was revoked or has expired stays: the audit log names it.
create table api_tokens (
    id        text   not null primary key,
    name      text   not null,
    role      text   not null check (role in ('viewer', 'operator', 'admin')),
    digest    blob   not null,              -- SHA-256 of the secret: 256 random bits need no slower hash
    created   bigint not null,
    maker     text,                         -- id of the token that made it; none: the hub itself
    expires   bigint,
    revoked   bigint,
    last_used bigint
);

-- Sessions of browsers. They end with their token.
create table sessions (
    digest  blob   not null primary key,    -- SHA-256 of the cookie
    token   text   not null references api_tokens (id),
    created bigint not null,
    expires bigint not null,
    used    bigint not null
);
create index sessions_by_token on sessions (token, created);
