-- `exclusive` means the whole machine elsewhere; what was meant is called no_overlap.

UPDATE job SET spec = json_remove(json_set(spec, '$.no_overlap', json('true')), '$.exclusive')
WHERE spec LIKE '%"exclusive":true%' AND json_extract(spec, '$.exclusive');

UPDATE batch SET spec = json_remove(json_set(spec, '$.no_overlap', json('true')), '$.exclusive')
WHERE spec LIKE '%"exclusive":true%' AND json_extract(spec, '$.exclusive');
