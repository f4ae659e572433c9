PRAGMA application_id = 1685087843;
PRAGMA user_version = 1;
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
INSERT INTO "budgets" VALUES(1,'ward','ward',1.0,1.0e-05,'add_or_remove_one','one patient','{"kind": "gdp", "mu": 0.2680511232112942}','2026-11-28T01:00:17+00:00');
INSERT INTO "budgets" VALUES(2,'Station 7','station 7',2.0,1.0e-06,'add_or_remove_one','one row','{"kind": "renyi", "orders": [8.0, 9.0, 13.0], "budgets": [0.3000054919167159, 0.5281707519938347, 1.050944916908248]}','2026-11-28T01:00:17+00:00');
CREATE TABLE spends (
    id INTEGER PRIMARY KEY,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    purpose TEXT NOT NULL,
    event TEXT NOT NULL,
    cost TEXT NOT NULL,
    made_at TEXT NOT NULL
);
INSERT INTO "spends" VALUES(1,1,'count','{"type": "GaussianDpEvent", "noise_multiplier": 20.0}','[0.0025]','2026-11-28T01:00:17+00:00');
INSERT INTO "spends" VALUES(2,1,'mean','{"type": "GaussianDpEvent", "noise_multiplier": 30.0}','[0.0011111111111111113]','2026-11-28T01:00:17+00:00');
INSERT INTO "spends" VALUES(3,2,'fit DPSGDClassifier','{"type": "SelfComposedDpEvent", "count": 10, "event": {"type": "PoissonSampledDpEvent", "sampling_probability": 0.01, "event": {"type": "GaussianDpEvent", "noise_multiplier": 4.0}}}','[0.0002589912301305098, 0.00029155648452494984, 0.00042224766576185043]','2026-11-28T01:00:17+00:00');
CREATE TABLE statements (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    statement TEXT NOT NULL
);
INSERT INTO "statements" VALUES(1,'{"schema_version":"1","kind":"fit","estimator":"count","dataset":"ward","private":true,"reasons_not_private":[],"target_epsilon":0.16004203463282252,"target_delta":0.00001,"neighboring_relation":"add_or_remove_one","unit_of_privacy":"one row","accountant":"exact","epsilon_by_accountant":{"exact":0.1600420344581337,"pld":0.16004287795136424,"rdp":0.17751123363124333},"mu":0.05,"event":{"type":"ComposedDpEvent","events":[{"type":"GaussianDpEvent","noise_multiplier":20.0}]},"attack":{"points":[{"false_positive_rate":0.001,"true_positive_rate":0.0011819786702771007},{"false_positive_rate":0.01,"true_positive_rate":0.011412598437850691},{"false_positive_rate":0.1,"true_positive_rate":0.10905832154885002}],"advantage":0.019945036390476057},"releases":[{"name":"count","description":"sum over rows of 1","shape":[1],"l2_sensitivity":1.0,"numerical_slack":0.0,"noise_multiplier":20.0,"noise_standard_deviation":20.0,"count":1,"sampling_probability":1.0,"share_of_budget":1.0}],"budget":null,"rests_on":["nothing"],"random_source":"a test","versions":{"python":"3.11.7","dpfc":"0.1.0","dp-accounting":"0.6.0","numpy":"2.4.6","scipy":"1.17.1","torch":"2.13.0+cpu"}}');
INSERT INTO "statements" VALUES(2,'{"schema_version":"1","kind":"fit","estimator":"count","dataset":"ward","private":false,"reasons_not_private":["random_state was given: anyone who knows the seed can remove the noise; do not publish"],"target_epsilon":0.10273957672390817,"target_delta":0.00001,"neighboring_relation":"add_or_remove_one","unit_of_privacy":"one row","accountant":"exact","epsilon_by_accountant":{"exact":0.10273957661140404,"pld":0.1027402144112628,"rdp":0.11447148884843639},"mu":0.03333333333333333,"event":{"type":"ComposedDpEvent","events":[{"type":"GaussianDpEvent","noise_multiplier":30.0}]},"attack":{"points":[{"false_positive_rate":0.001,"true_positive_rate":0.0011181981880326551},{"false_positive_rate":0.01,"true_positive_rate":0.010923583913321065},{"false_positive_rate":0.1,"true_positive_rate":0.10597557443029772}],"advantage":0.013297460387365154},"releases":[{"name":"count","description":"sum over rows of 1","shape":[1],"l2_sensitivity":1.0,"numerical_slack":0.0,"noise_multiplier":30.0,"noise_standard_deviation":30.0,"count":1,"sampling_probability":1.0,"share_of_budget":1.0}],"budget":null,"rests_on":["nothing"],"random_source":"a test","versions":{"python":"3.11.7","dpfc":"0.1.0","dp-accounting":"0.6.0","numpy":"2.4.6","scipy":"1.17.1","torch":"2.13.0+cpu"}}');
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
COMMIT;
