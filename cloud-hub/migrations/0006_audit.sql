-- Every change of state, one entry a change, each bound to the one before it by its hash. Times are UTC microseconds.
create table audit (
    number    bigint not null primary key,    -- from 1 on, without gaps
    time      bigint not null,
    who       text   not null,                -- hub, nobody, device:<id>, token:<id>
    role      text   not null,                -- role of a token, else empty
    action    text   not null,
    subject   text   not null,
    from_json text   not null,
    to_json   text   not null,
    origin    text   not null,                -- address of the caller, else empty
    previous  blob   not null,                -- hash of the entry before; 32 zeros for the first
    hash      blob   not null
);
create index audit_by_subject on audit (subject, number);

-- Entries are only ever appended. A program that does otherwise is stopped here; a person who drops the triggers is
-- found out by the hashes.
create trigger audit_never_changed before update on audit
begin select raise(abort, 'the audit log is append-only: no entry may be changed'); end;
create trigger audit_never_removed before delete on audit
begin select raise(abort, 'the audit log is append-only: no entry may be removed'); end;
-- Also refuses `insert or replace` over an entry, which fires no delete trigger.
create trigger audit_in_order before insert on audit
when new.number <> (select coalesce(max(number), 0) + 1 from audit)
begin select raise(abort, 'the audit log is append-only: an entry takes the number after the last'); end;
