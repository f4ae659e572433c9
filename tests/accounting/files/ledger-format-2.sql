PRAGMA application_id = 1685087843;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    dataset_key TEXT NOT NULL UNIQUE,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    neighboring_relation TEXT NOT NULL,
    unit_of_privacy TEXT NOT NULL,
    filter TEXT NOT NULL,
    created_at TEXT NOT NULL
);
INSERT INTO "budgets" VALUES(1,'ward 7','ward 7',3.0,1.0e-06,'add_or_remove_one','one patient','{"kind": "gdp", "mu": 0.6477265306887239}','2026-11-28T15:51:30+00:00');
INSERT INTO "budgets" VALUES(2,'Größe','grösse',1.0,1.0e-05,'replace_one','one row','{"kind": "renyi", "orders": [11.0, 12.0, 20.0], "budgets": [0.07394593172025421, 0.16640854936670527, 0.5451982691194082]}','2026-11-28T15:51:30+00:00');
CREATE TABLE details (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    token TEXT,
    stated_purpose TEXT,
    made_by TEXT,
    not_private TEXT,
    UNIQUE (budget_id, token)
);
INSERT INTO "details" VALUES(1,1,'t','readmission study','team A',NULL);
CREATE TABLE fingerprints (
    id INTEGER PRIMARY KEY,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    digest TEXT NOT NULL,
    UNIQUE (budget_id, digest)
);
INSERT INTO "fingerprints" VALUES(1,1,'8a05a884b0b912edd1a93d727e9f391c7b3da8e461414288beb29322fb19bec6');
CREATE TABLE models (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL
);
INSERT INTO "models" VALUES(1,'m.safetensors','0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    salt TEXT NOT NULL
);
INSERT INTO "origins" VALUES(1,'44035a5a66f542c7ebe577b8b01eafae4250506e355355677de6e076b6eb44a5');
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    table_name TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    UNIQUE (table_name, row_id)
);
INSERT INTO "records" VALUES(1,'origins',1,'39c3324308b6b10e6eccc9cc3203141466431d349b78a09a224dcad187130eca');
INSERT INTO "records" VALUES(2,'budgets',1,'7d428ccf344d6c3eb90c12994dbc8f32bca6114ce52c8fb8aaab54e6f030bf6b');
INSERT INTO "records" VALUES(3,'budgets',2,'f459b4375ea2bb480c6864e0420c74b7994e58b1ca4d40f1f4e868a05924f015');
INSERT INTO "records" VALUES(4,'fingerprints',1,'953dd41787e1e1d1f71d0f562afe44a1e863dabb7fca5ad7d95ad7151bb9358d');
INSERT INTO "records" VALUES(5,'spends',1,'cd2d4a4bda166f7959509e4ff2289183c76a9ed12cbcf24e467344cabb0d8ce3');
INSERT INTO "records" VALUES(6,'details',1,'426bc9ac2159769505b2ad5e04afe8625989e28d6a79e983ef63bef580a64d22');
INSERT INTO "records" VALUES(7,'spends',2,'01210e3fcc0b6f24e1477a8dbdc417765dc9b82e75d6b155a756f54c8e8919f2');
INSERT INTO "records" VALUES(8,'models',1,'4939b199f890c36535258491094c6d7d6b18be89235d7dd6034582974c9eb331');
CREATE TABLE spends (
    id INTEGER PRIMARY KEY,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    purpose TEXT NOT NULL,
    event TEXT NOT NULL,
    cost TEXT NOT NULL,
    made_at TEXT NOT NULL
);
INSERT INTO "spends" VALUES(1,1,'fit','{"type": "GaussianDpEvent", "noise_multiplier": 4.0}','[0.0625]','2026-11-28T15:51:30+00:00');
INSERT INTO "spends" VALUES(2,2,'fit','{"type": "SelfComposedDpEvent", "count": 3, "event": {"type": "GaussianDpEvent", "noise_multiplier": 60.0}}','[0.0045833333333333386, 0.005000000000000006, 0.008333333333333342]','2026-11-28T15:51:30+00:00');
CREATE TABLE statements (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    statement TEXT NOT NULL
);
CREATE TRIGGER budgets_update BEFORE UPDATE ON budgets
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER budgets_delete BEFORE DELETE ON budgets
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER budgets_replace BEFORE INSERT ON budgets
WHEN EXISTS (SELECT 1 FROM budgets WHERE id = NEW.id OR dataset_key = NEW.dataset_key)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER spends_update BEFORE UPDATE ON spends
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER spends_delete BEFORE DELETE ON spends
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER spends_replace BEFORE INSERT ON spends
WHEN EXISTS (SELECT 1 FROM spends WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER statements_update BEFORE UPDATE ON statements
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER statements_delete BEFORE DELETE ON statements
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER statements_replace BEFORE INSERT ON statements
WHEN EXISTS (SELECT 1 FROM statements WHERE spend_id = NEW.spend_id)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER origins_update BEFORE UPDATE ON origins
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER origins_delete BEFORE DELETE ON origins
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER origins_replace BEFORE INSERT ON origins
WHEN EXISTS (SELECT 1 FROM origins WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER details_update BEFORE UPDATE ON details
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER details_delete BEFORE DELETE ON details
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER details_replace BEFORE INSERT ON details
WHEN EXISTS (SELECT 1 FROM details WHERE spend_id = NEW.spend_id OR budget_id = NEW.budget_id AND token = NEW.token)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER models_update BEFORE UPDATE ON models
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER models_delete BEFORE DELETE ON models
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER models_replace BEFORE INSERT ON models
WHEN EXISTS (SELECT 1 FROM models WHERE spend_id = NEW.spend_id)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER fingerprints_update BEFORE UPDATE ON fingerprints
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER fingerprints_delete BEFORE DELETE ON fingerprints
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER fingerprints_replace BEFORE INSERT ON fingerprints
WHEN EXISTS (SELECT 1 FROM fingerprints WHERE id = NEW.id OR budget_id = NEW.budget_id AND digest = NEW.digest)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER records_update BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER records_delete BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER records_replace BEFORE INSERT ON records
WHEN EXISTS (SELECT 1 FROM records WHERE id = NEW.id OR table_name = NEW.table_name AND row_id = NEW.row_id OR hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
COMMIT;
